"""Episodes: what is in them, where labels are read, and that a model reads them as it reads any prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import OPTForCausalLM

from edgeicl.distill.in_context_tuning import episode_scores
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.scoring import score_queries
from edgeicl.distill.tuned_tasks import TunedTask
from edgeicl.distill.tuning_episodes import Episode, draw_episodes
from edgeicl.errors import DataError
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder

WORDS = {"good": " Yes", "bad": " No"}


def task(tokenizer: Tokenizer, name: str, *, words: dict[str, str] = WORDS, count: int = 12) -> TunedTask:
    encoder = PromptEncoder(tokenizer, pattern="{text}?", verbalizers=words, separator="\n")
    labels = list(words)
    examples = tuple(Example({"text": f"{name}{n}"}, labels[n % 4 == 0]) for n in range(count))
    return TunedTask(name, encoder, examples)


def draw(tasks: list[TunedTask], **changed: object) -> list[Episode]:
    options = {"count": 40, "demonstrations": 4, "balanced": True, "every_label": False, "seed": 0}
    return draw_episodes(tasks, **options | changed)  # type: ignore[arg-type]


def test_an_episode_is_a_prompt_of_its_task(tokenizer: Tokenizer) -> None:
    first, second = task(tokenizer, "a"), task(tokenizer, "b")
    episodes = draw([first, second])
    for number, episode in enumerate(episodes):
        of = (first, second)[number % 2]
        *shown, query = tokenizer.decode(list(episode.ids), skip_special_tokens=True).split("\n")
        texts = {example.columns["text"]: example.label for example in of.examples}
        labels = Counter(texts[line.split("?")[0]] for line in shown)
        assert labels == {"good": 2, "bad": 2}
        assert all(line == f"{text}?{WORDS[texts[text]]}" for line in shown for text in [line.split("?")[0]])
        assert query.removesuffix("?") in texts
        assert query not in {line[: len(query)] for line in shown}
        assert episode.reads == (len(episode.ids) - 1,)
        assert [list(of.encoder.labels)[label] for label in episode.gold] == [texts[query.removesuffix("?")]]
    assert len(set(episodes)) > 30
    assert draw([first, second]) == episodes != draw([first, second], seed=1)


def test_labels_of_demonstrations_are_where_the_next_token_says_so(tokenizer: Tokenizer) -> None:
    (of,) = tasks = [task(tokenizer, "a")]
    words = list(of.encoder.tokens.values())
    counts = Counter()
    for episode in draw(tasks, every_label=True):
        *shown, query = episode.reads
        assert query == len(episode.ids) - 1
        assert [words.index((episode.ids[place + 1],)) for place in shown] == list(episode.gold[:-1])
        counts[sum(episode.gold[:-1])] += 1
    # As they come, where 1 in 4 is bad: in a balanced set the count would always be 2.
    assert len(counts) > 1


def test_every_read_is_what_scoring_the_prompt_up_to_it_says(
    tokenizer: Tokenizer, opt: Callable[..., OPTForCausalLM]
) -> None:
    """An independent second way: each demonstration as a query of its own, packed instead of padded."""
    reader = LabelReader(opt(seed=3))
    longer = task(tokenizer, "c", words={"good": "maybe", "bad": "never so"})
    tasks = [task(tokenizer, "a"), task(tokenizer, "bbbb")]
    episodes = draw(tasks, every_label=True, count=6) + draw([longer], count=3)
    scores = episode_scores(reader, episodes, over="verbalizers")
    for episode, found in zip(episodes, scores, strict=True):
        prompts = [episode.ids[: place + 1] for place in episode.reads]
        expected = score_queries(reader, prompts, episode.words, before=())
        assert np.abs(found - expected).max() < 1e-4
    # Negative control: read one token late.
    (episode, found) = episodes[0], scores[0]
    late = score_queries(reader, [episode.ids[: episode.reads[0] + 2]], episode.words, before=())
    assert np.abs(found[0] - late[0]).max() > 1e-2


def test_what_can_not_be_drawn_is_told(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"a: found 4 usable examples; expected more than the 4 demonstrations"):
        draw([task(tokenizer, "a", count=4)])
    with pytest.raises(DataError, match="need more examples than the training data has; found bad: 2 of 3"):
        draw([task(tokenizer, "a", count=8)], demonstrations=6)
    with pytest.raises(DataError, match="which needs label words of one token"):
        draw([task(tokenizer, "a", words={"good": " fine", "bad": " No"})], every_label=True)


def test_padding_and_company_change_nothing(tokenizer: Tokenizer, opt: Callable[..., OPTForCausalLM]) -> None:
    reader = LabelReader(opt(seed=3))
    episodes = draw([task(tokenizer, "a"), task(tokenizer, "bbbbbbbb")], count=8)
    together = episode_scores(reader, episodes, over="vocabulary")
    alone = [episode_scores(reader, [episode], over="vocabulary")[0] for episode in episodes]
    assert all(
        torch.allclose(torch.from_numpy(one), torch.from_numpy(other), atol=1e-4)
        for one, other in zip(together, alone, strict=True)
    )
