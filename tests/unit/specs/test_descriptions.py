"""Descriptions stand in messages without their key before them."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel

from edgeicl.errors import SpecError
from edgeicl.specs.catalog import load_recipe
from edgeicl.specs.format_cost import FormatCost
from edgeicl.specs.recovery import Recover
from edgeicl.specs.target import BitsBandwidth, Budget, Calibration, Target

_NEEDS_ITS_KEY = re.compile(r"(Of|At|From|On|In) ")


@pytest.mark.parametrize("spec", [BitsBandwidth, Budget, Calibration, FormatCost, Recover, Target])
def test_a_description_reads_alone(spec: type[BaseModel]) -> None:
    told = {name: field.description or "" for name, field in spec.model_fields.items()}
    assert [name for name, text in told.items() if _NEEDS_ITS_KEY.match(text)] == []


def test_a_recovery_without_steps_is_asked_for_them() -> None:
    with pytest.raises(SpecError, match=r"expected: Steps of training\."):
        load_recipe("quickstart", ["quantize.recover={learning_rate: 0.1}"])
