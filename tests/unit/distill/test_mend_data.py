"""What MEND's hypernetwork learns from, and what it must never see."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeicl.distill.meta_training import Room, draw_episode, to_train_on
from edgeicl.distill.tuned_tasks import TunedTask
from edgeicl.errors import DataError
from edgeicl.specs.recipe import Recipe
from edgeicl.tasks.example import Example
from edgeicl.tasks.leakage import text_key, text_keys
from edgeicl.tasks.prompt import PromptEncoder
from tests.unit.byte_tokenizer import byte_tokenizer
from tests.unit.distill.mend_recipe import material, mend_recipe


def encoder() -> PromptEncoder:
    return PromptEncoder(
        byte_tokenizer(), pattern="{text}", verbalizers={"yes": " Yes", "no": " No"}, separator="\n"
    )


def examples(count: int) -> tuple[Example, ...]:
    return tuple(Example({"text": f"text {n:02}"}, "yes" if n % 2 else "no") for n in range(count))


def test_an_episode_shows_and_asks_for_different_examples_of_one_task() -> None:
    tasks = [TunedTask("one", encoder(), examples(12)), TunedTask("two", encoder(), examples(12)[::-1])]
    room = Room(context_tokens=1000, prompt_tokens=1000)
    drawn = []
    for number in range(30):
        episode = draw_episode(tasks, demonstrations=4, balanced=True, queries=8, room=room, seed=f"0/{number}")
        assert len(episode.queries) == 8
        shown = byte_tokenizer().decode(episode.context)
        asked = [byte_tokenizer().decode(list(query.tokens)) for query in episode.queries]
        assert len(set(asked)) == 8
        assert sum(text in shown for text in asked) == 0
        assert shown.count("Yes") == 2
        drawn.append(shown)
    assert len(set(drawn)) == 30


def test_episodes_that_do_not_fit_are_drawn_again_or_refused() -> None:
    long = (*examples(6), Example({"text": "x" * 100}, "yes"), Example({"text": "y" * 100}, "no"))
    task, room = TunedTask("some task", encoder(), long), Room(context_tokens=60, prompt_tokens=70)
    for number in range(20):
        episode = draw_episode([task], demonstrations=2, balanced=True, queries=2, room=room, seed=str(number))
        assert len(episode.context) <= 60
    tight = Room(context_tokens=10, prompt_tokens=70)
    with pytest.raises(DataError, match=r"some task: 20 draws of 2 demonstrations had more than 10 tokens"):
        draw_episode([task], demonstrations=2, balanced=True, queries=2, room=tight, seed="0")
    with pytest.raises(DataError, match="8 examples; expected at least 2 demonstrations and 7 queries"):
        draw_episode([task], demonstrations=2, balanced=True, queries=7, room=room, seed="0")


def test_training_sees_no_text_that_is_evaluated_or_kept_back() -> None:
    evaluated = text_keys("{text}", [Example({"text": "Text  03", "other": "-"}, "no")])
    kept_back = text_keys("{text} {other}", [Example({"other": "x", "text": "y"}, "no")])
    kept_back += text_keys("{text}", [Example({"text": "TEXT 01"}, "yes")])
    given = (*examples(5), *examples(2))
    kept, (told,) = to_train_on(
        given, pattern="so: {text}?", evaluated=set(evaluated), kept_back=set(kept_back), where="some task"
    )
    assert [example.columns["text"] for example in kept] == [f"text {n:02}" for n in (0, 2, 4)]
    assert (told.where, told.asked, told.got) == ("some task", "5", "3")
    assert told.why.startswith("1 texts are in the evaluation data too, and 1 are demonstrations")
    assert to_train_on(given, pattern="{text}", evaluated=set(), kept_back=set(), where="") == (examples(5), ())


@pytest.mark.parametrize("target", ["unseen", "seen"])
def test_meta_training_leaves_out_what_the_target_is_judged_by(
    recipe: Recipe, model_folders: tuple[Path, Path], tmp_path: Path, target: str
) -> None:
    """The further task has the target's very texts, and asks something else about them."""
    wanted = mend_recipe(recipe, *model_folders, target=target)
    data = material(wanted, tmp_path)
    judged = [data.target.held_out, *data.target.demonstrations.values(), *data.run.evaluation.values()]
    pattern = wanted.task.pattern
    seen = {text_key(pattern, example) for task in data.meta_tasks for example in task.examples}
    assert len(data.target.held_out) == 6
    assert len(seen) == 80 - 6 - 4
    assert not seen & {text_key(pattern, example) for examples in judged for example in examples}
    (told,) = data.deviations
    assert told.where == "distill.mend.tasks.0 (builtin:nli/animal (train))"
    assert (told.asked, told.got) == ("80", "70")


def test_texts_of_the_evaluation_leave_a_meta_training_task(
    recipe: Recipe, model_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    of_the_test = {"train": {"source": "builtin:nli/animal", "split": "test", "limit": 40}}
    data = material(mend_recipe(recipe, *model_folders, tasks=[of_the_test]), tmp_path)
    (task,) = data.meta_tasks
    assert len(task.examples) == 10
    assert data.deviations[0].why.startswith("30 texts are in the evaluation data too")


def test_the_target_in_disguise_is_no_unseen_task(
    recipe: Recipe, model_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    disguised = {
        "train": {
            "source": "builtin:nli/doubt",
            "split": "train",
            "limit": 80,
            "map_labels": {"entailment": "contradiction", "contradiction": "entailment"},
        }
    }
    with pytest.raises(DataError, match=r"distill.mend.tasks.0 .* asks what the target task asks"):
        _ = material(mend_recipe(recipe, *model_folders, tasks=[disguised]), tmp_path).meta_tasks
    _ = material(mend_recipe(recipe, *model_folders, tasks=[disguised], target="seen"), tmp_path).meta_tasks


def test_demonstrations_come_from_their_own_source(
    recipe: Recipe, model_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    elsewhere = {"source": "builtin:nli", "split": "validation", "limit": 40}
    changed = recipe.model_dump()
    changed["distill"]["demonstrations"]["source"] = elsewhere
    data = material(mend_recipe(Recipe.model_validate(changed), *model_folders), tmp_path)
    shown = {example.where for examples in data.target.demonstrations.values() for example in examples}
    assert all("validation" in where for where in shown)
    assert len(data.target.scored) == 60

    changed["distill"]["demonstrations"]["source"] = elsewhere | {"split": "test"}
    leaking = mend_recipe(Recipe.model_validate(changed), *model_folders)
    with pytest.raises(DataError, match="30 of 40 texts are in the evaluation data too"):
        _ = material(leaking, tmp_path).target
    changed["distill"]["leakage"] = "drop"
    dropped = material(mend_recipe(Recipe.model_validate(changed), *model_folders), tmp_path)
    assert {one.got for one in dropped.target.deviations} == {"10"}
