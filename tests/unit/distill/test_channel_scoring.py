"""The channel, judged by whole prompts run one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import OPTForCausalLM

from edgeicl.distill.channel_scoring import channel_slices, slices_scorer
from edgeicl.distill.label_reader import LabelReader
from edgeicl.errors import DataError
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import ChannelEncoder, PromptEncoder

WORDS = {"yes": "Right", "no": "Wrong!"}
QUERIES = [Example({"text": text}, "yes") for text in ("a", "bcd efg", "hij klm nop qrst" * 9, "uv")]
SHOWN = [Example({"text": "one"}, "yes"), Example({"text": "two"}, "no")]


def encoders(tokenizer: Tokenizer) -> tuple[PromptEncoder, ChannelEncoder]:
    made = {"pattern": "\n{text}", "verbalizers": WORDS, "separator": "##"}
    return PromptEncoder(tokenizer, **made), ChannelEncoder(tokenizer, **made)  # type: ignore[arg-type]


def one_by_one(model: OPTForCausalLM, before: list[int], query: list[int], word: tuple[int, ...]) -> float:
    ids = torch.tensor([[*before, *word, *query]])
    steps = model(ids).logits[0].log_softmax(-1)
    first = len(before) + len(word)
    return sum(float(steps[first + place - 1, token]) for place, token in enumerate(query))


@pytest.mark.parametrize("score", ["sum", "mean"])
@pytest.mark.parametrize("shown", [[], SHOWN])
def test_as_whole_prompts_say(
    opt: Callable[..., OPTForCausalLM], tokenizer: Tokenizer, shown: list[Example], score: str
) -> None:
    model = opt(seed=1)
    _, channel = encoders(tokenizer)
    before, queries = channel.demonstrations(shown), channel.queries(QUERIES)
    told: list[int] = []
    slices = channel_slices(
        LabelReader(model, score=score),  # type: ignore[arg-type]
        queries,
        list(channel.tokens.values()),
        [(0, 3), (3, 4)],
        before=before,
        advance=told.append,
    )
    found = np.concatenate(list(slices))
    with torch.inference_mode():
        expected = np.array(
            [[one_by_one(model, before, query, word) for word in channel.tokens.values()] for query in queries]
        )
    if score == "mean":
        expected /= [[len(query)] for query in queries]
    expected -= np.logaddexp.reduce(expected, axis=1, keepdims=True)
    assert np.abs(found - expected).max() < 2e-4
    assert np.abs(found - expected[:, ::-1]).max() > 0.01  # negative control: labels the other way round
    assert sum(told) == len(queries)


def test_roles_are_swapped_in_demonstrations(tokenizer: Tokenizer) -> None:
    direct, channel = encoders(tokenizer)
    assert tokenizer.decode(direct.demonstrations(SHOWN)).endswith("\noneRight##\ntwoWrong!##")
    assert tokenizer.decode(channel.demonstrations(SHOWN)).endswith("Right\none##Wrong!\ntwo##")


def test_the_encoder_decides(opt: Callable[..., OPTForCausalLM], tokenizer: Tokenizer) -> None:
    reader = LabelReader(opt(seed=1))
    direct, channel = (
        next(
            slices_scorer(encoder)(
                reader,
                encoder.queries(QUERIES),
                list(encoder.tokens.values()),
                [(0, 4)],
                before=encoder.leading,
            )
        )
        for encoder in encoders(tokenizer)
    )
    assert direct.shape == channel.shape == (4, 2)
    assert np.abs(direct - channel).max() > 0.01


def test_a_prompt_too_long_is_refused(opt: Callable[..., OPTForCausalLM], tokenizer: Tokenizer) -> None:
    _, channel = encoders(tokenizer)
    with pytest.raises(DataError, match="longest prompt has 151 tokens"):
        next(
            channel_slices(
                LabelReader(opt(seed=1, positions=150)),
                channel.queries(QUERIES),
                [(5, 6)],
                [(0, 4)],
                before=[0] * (149 - max(map(len, channel.queries(QUERIES)))),
            )
        )
