"""Keys of a recipe that say in which form data comes and how it is scored, and what can't go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeicl.errors import SpecError
from edgeicl.specs.loading import parse_spec
from edgeicl.specs.located import located
from edgeicl.specs.recipe import Recipe

RECIPE = """
version: 1
name: r
task:
  pattern: "{text}"
  verbalizers: {a: " Yes", b: " No"}
  scoring: channel
  train: {source: "file:pool.jsonl"}
  in_domain: {source: "file:test.csv", columns: [label, text], breakdown: kind}
distill:
  method: context
  teacher: {model: "builtin:nli-teacher"}
  student: {model: "builtin:nli-student"}
  demonstrations:
    seeds: [13, 21]
    source: {source: "file:16-{seed}/train.csv", columns: [label, text]}
"""


def recipe(base_folder: Path | None = None, **changes: str) -> Recipe:
    text = RECIPE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return parse_spec(text, Recipe, source="r.yaml", base_folder=base_folder)


def test_each_seed_has_its_file(tmp_path: Path) -> None:
    source = recipe().distill.demonstrations.source
    assert source is not None
    assert [source.for_seed(seed).source for seed in (13, 21)] == [
        "file:16-13/train.csv",
        "file:16-21/train.csv",
    ]
    found = located(recipe(), tmp_path).distill.demonstrations.source
    assert found is not None
    assert found.source == f"file:{tmp_path.resolve()}/16-{{seed}}/train.csv"

    for name in ("pool.jsonl", "test.csv", "16-13/train.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(SpecError, match=r"line 16 .*demonstrations\.source .*no file .*16-21/train\.csv"):
        recipe(tmp_path)
    (tmp_path / "16-21").mkdir()
    (tmp_path / "16-21" / "train.csv").touch()
    assert recipe(tmp_path) == recipe()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method: context": "method: none"}, r"channel with method none; expected method context"),
        ({"  demonstrations:": "  objective: {over: vocabulary}\n  demonstrations:"}, r"over vocabulary"),
        ({'pool.jsonl"': 'pool.jsonl", breakdown: kind'}, r"line 4 .*train has a breakdown; expected one in"),
        ({"file:test.csv": "hub:x/y"}, r"columns .*label, text; expected none: only a `file:`"),
        ({"[label, text], b": "[text, text], b"}, r"columns .*text, text; expected distinct names"),
        ({"breakdown: kind": "rename: {x: text, y: text}"}, r"rename .*two columns become one"),
        ({"scoring: channel": "scoring: chanel"}, r"line 7 .*task\.scoring .*did you mean 'channel'"),
        ({"scoring: channel": "score: median"}, r"line 7 .*task\.score .*allowed: sum, mean"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_told(changes: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        recipe(**changes)
