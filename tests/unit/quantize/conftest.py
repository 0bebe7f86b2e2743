"""The tiny student, made once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import OPTForCausalLM

from edgeicl.quantize.student_weights import StudentWeights, read_weights
from tests.unit.quantize.tiny_student import make_student


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student's folder, with training data beside its files."""
    folder = make_student(tmp_path_factory.mktemp("student"))
    rows = [{"text": f"w{i} w{(7 * i) % 90}", "label": "yes" if i % 2 else "no"} for i in range(20)]
    (folder / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def weights(student: Path) -> StudentWeights:
    return read_weights(student)


@pytest.fixture(scope="session")
def reference(student: Path) -> OPTForCausalLM:
    return OPTForCausalLM.from_pretrained(student).eval()
