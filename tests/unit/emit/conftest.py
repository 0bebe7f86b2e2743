from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeicl.specs.quant_plan import Format
from tests.unit.emit.tiny_opt import Tiny, make_student, write_quantized


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    make_student(folder)
    return folder


@pytest.fixture(scope="session")
def quantize(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Format], Tiny]:
    """The student with every group in one format, as the quantize stage's folder holds it."""
    made: dict[Format, Tiny] = {}

    def make(format_: Format) -> Tiny:
        if format_ not in made:
            folder = tmp_path_factory.mktemp("quantized")
            write_quantized(student, folder, format_)
            made[format_] = Tiny(student, folder)
        return made[format_]

    return make
