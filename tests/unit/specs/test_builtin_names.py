"""Names after `builtin:`, and folders of models, are checked when a recipe is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgeicl.specs.distillation import Student
from edgeicl.specs.source import Source


@pytest.mark.parametrize(
    ("source", "split", "said"),
    [
        ("builtin:nly", "train", "no built-in source 'nly'"),
        ("builtin:nli/entailmnt", "train", "no built-in task 'entailmnt'; did you mean 'entailment'"),
        ("builtin:nli", "tset", "no split 'tset' of a built-in source; did you mean 'test'"),
    ],
)
def test_a_built_in_source_that_is_not_there(source: str, split: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Source.model_validate({"source": source, "split": split})


def test_a_built_in_model_that_is_not_there() -> None:
    with pytest.raises(ValidationError, match="no built-in model 'nli-studnt'; did you mean 'nli-student'"):
        Student.model_validate({"model": "builtin:nli-studnt"})


@pytest.mark.parametrize("name", ["./absent", "models/of/mine", "~/absent"])
def test_a_model_folder_that_is_not_there(name: str, tmp_path: Path) -> None:
    context: dict[str, Any] = {"base_folder": tmp_path}
    with pytest.raises(ValidationError, match=r"no model in .*; expected a folder with config\.json"):
        Student.model_validate({"model": name}, context=context)
    assert Student.model_validate({"model": name}).model == name  # read without its files
    assert Student.model_validate({"model": "facebook/opt-125m"}, context=context).model == "facebook/opt-125m"
