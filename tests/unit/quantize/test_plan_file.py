"""Edited plans: every mistake at once, each with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeicl.errors import SpecError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.quantize.plan_file import read_plan
from edgeicl.specs.loading import dump_yaml
from edgeicl.specs.quant_plan import Format, GroupPlan, QuantPlan

GROUPS = anatomy_of(
    {
        "model_type": "opt",
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "vocab_size": 96,
    }
).groups
INT4, INT8 = Format(bits=4, block_size=16), Format(bits=8, block_size=32)
FORMATS = (INT4, INT8)


def _plan(**formats: Format) -> QuantPlan:
    return QuantPlan(
        model_digest="x",
        importance="sensitivity",
        groups=tuple(GroupPlan(group=g.name, format=formats.get(g.name, INT4)) for g in GROUPS),
        predicted_weight_bytes=1,
        predicted_artifact_bytes=2,
        predicted_resident_bytes=3,
    )


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_json_and_yaml_are_read(tmp_path: Path, kind: str) -> None:
    plan = _plan(embedding=INT8)
    path = tmp_path / f"plan.{kind}"
    path.write_text(plan.model_dump_json(indent=1) if kind == "json" else dump_yaml(plan))
    found = read_plan(path, groups=GROUPS, formats=FORMATS, model_digest="x")
    assert found == plan


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    """An unknown name (so its group is missing), a format that isn't offered, and blocks that don't divide."""
    written = json.loads(_plan().model_dump_json())
    written["groups"][0]["group"] = "layers.0.attention.qvk"
    written["groups"][2]["format"] = {"bits": 2, "block_size": 16}
    written["groups"][3]["format"] = {"bits": 8, "block_size": 32}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(written, indent=1))
    with pytest.raises(SpecError) as caught:
        read_plan(path, groups=GROUPS, formats=FORMATS, model_digest="x")
    lines = path.read_text().splitlines()
    said = [
        (problem.found, problem.expected, lines[(problem.line or 1) - 1]) for problem in caught.value.problems
    ]
    assert len(said) == 4
    assert said[0][0] == "unknown group 'layers.0.attention.qvk'"
    assert "did you mean 'layers.0.attention.qkv'" in said[0][1]
    assert said[1] == (
        "layers.0.mlp.up as int2/block16",
        "expected a format of the target: int4/block16, int8/block32",
        '   "format": {',
    )
    assert said[2][:2] == ("block_size 32 for layers.0.mlp.down", "expected a divisor of its 48 columns")
    assert said[3][0] == "no entry for layers.0.attention.qkv"


def test_a_file_that_is_no_plan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("version: 1\ngroups: []\n")
    with pytest.raises(SpecError, match="model_digest"):
        read_plan(path, groups=GROUPS, formats=FORMATS, model_digest="x")


def test_a_plan_for_other_weights_is_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(_plan().model_dump_json())
    read_plan(path, groups=GROUPS, formats=FORMATS, model_digest="x")
    assert not caplog.records
    read_plan(path, groups=GROUPS, formats=FORMATS, model_digest="y")
    assert "was made for other weights (x) than these (y)" in caplog.text
