"""What is kept of values that were made: those asked for last, and no more bytes than there is room for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeicl.numerics.affine import round_to_nearest
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.last_used import LastUsed
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.solver import EACH_ALONE, solve
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format
from tests.unit.quantize.tiny_student import SEQUENCES

INT4, INT8 = Format(bits=4, block_size=32), Format(bits=8, block_size=32)


def test_the_last_ones_asked_for_are_kept() -> None:
    made: list[str] = []

    def of(text: str) -> str:
        made.append(text)
        return text

    last = LastUsed[str](6, bytes_of=len)
    for text in ("aa", "bb", "cc", "aa", "dd", "bb"):  # bb goes for dd, and cc for bb
        assert last(text, lambda text=text: of(text)) == text  # type: ignore[misc]
    assert made == ["aa", "bb", "cc", "dd", "bb"]
    last("aa", lambda: pytest.fail("it is still there"))
    assert last("longer", lambda: of("longer")) == "longer"  # all others go
    assert last("too long", lambda: of("too long")) == "too long"  # and is not kept itself
    assert last("too long", lambda: of("too long")) == "too long"
    assert made[-3:] == ["longer", "too long", "too long"]


def test_a_group_is_rounded_once_for_all_that_ask(
    weights: StudentWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[Format] = []

    def count(matrix: np.ndarray, format_: Format) -> object:
        counted.append(format_)
        return round_to_nearest(matrix, format_)

    monkeypatch.setitem(EACH_ALONE, "rtn", count)
    weights = replace(weights)  # of which nothing was asked yet
    decoder = CalibratedDecoder(weights, SEQUENCES)
    sensitivity = Sensitivity(decoder)
    for format_ in (INT4, INT8):
        sensitivity.losses(weights.groups, weights, format_)
    assert len(counted) == 2 * len(weights.groups)
    for format_ in (INT8, INT4):
        stored = solve("rtn", weights, dict.fromkeys(weights.matrices, format_), decoder)
        for group, matrix in weights.matrices.items():
            np.testing.assert_array_equal(stored[group].codes, round_to_nearest(matrix, format_).codes)  # type: ignore[union-attr]
    assert len(counted) == 2 * len(weights.groups)
    solve("rtn", weights, dict.fromkeys(weights.matrices, Format(bits=8, block_size=16)), decoder)
    assert len(counted) == 3 * len(weights.groups)
