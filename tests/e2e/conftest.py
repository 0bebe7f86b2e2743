"""A small build, made once for the tests of a process that only look at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.small_build import Program, small_compile


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return Program(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def artifact(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small build, shared by the tests that only look."""
    output = tmp_path_factory.mktemp("build") / "artifact"
    done = program.run(*small_compile(output))
    assert done.returncode == 0, done.stderr
    return output
