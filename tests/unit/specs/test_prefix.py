"""What a recipe may say of a prefix, and the file that the recipe layer hands over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from edgeicl.specs.distillation import Distill
from edgeicl.specs.prefix import read_prefix_source, write_prefix_source


def test_only_an_untrained_student_carries_its_demonstrations_by_recipe() -> None:
    said = {"student": {"model": "a"}, "prefix": "demonstrations"}
    assert Distill.model_validate(said | {"method": "none"}).prefix == "demonstrations"
    with pytest.raises(ValidationError, match="prefix: demonstrations with method context"):
        Distill.model_validate(said | {"method": "context", "teacher": {"model": "b"}})


def test_sets_come_back_in_order_and_kind(tmp_path: Path) -> None:
    sets = [np.arange(count, dtype=np.int64) for count in range(1, 13)]
    write_prefix_source(tmp_path / "tokens", sets)
    for made, read in zip(sets, read_prefix_source(tmp_path / "tokens"), strict=True):
        np.testing.assert_array_equal(made, read)
        assert read.dtype == np.int64
    vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    write_prefix_source(tmp_path / "vectors", [vectors])
    (read,) = read_prefix_source(tmp_path / "vectors")
    np.testing.assert_array_equal(read, vectors)
