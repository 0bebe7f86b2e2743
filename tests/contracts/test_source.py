"""House rules that a look at the files can check."""

from __future__ import annotations

import ast

import pytest

from tests.contracts.source_tree import PACKAGE, REPOSITORY, python_files

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "core"}
LONGEST_FILE_LINES = 350
PRINTING_FILES = {
    "answers.py",
    "program.py",
    "query_loop.py",
    "runner.py",
    "genai_process.py",
    "optimum_process.py",
    "scoring_process.py",
}  # they speak JSON on stdout, as programs of their own


def test_no_file_or_folder_has_a_name_that_says_nothing() -> None:
    named = [
        path for path in PACKAGE.rglob("*") if path.stem in FORBIDDEN_NAMES and "__pycache__" not in path.parts
    ]
    assert not named
    assert len(python_files()) > 60  # negative control: there was something to look at


def test_no_file_is_too_long() -> None:
    tests = sorted((REPOSITORY / "tests").rglob("*.py"))
    assert tests
    lengths = {path: len(path.read_text().splitlines()) for path in [*python_files(), *tests]}
    long = [
        f"{path.relative_to(REPOSITORY)}: {count} lines"
        for path, count in lengths.items()
        if count > LONGEST_FILE_LINES
    ]
    assert not long, "\n".join(long)


def test_nothing_but_commands_prints() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}"
        for path in python_files()
        if path.name not in PRINTING_FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stdout.write")
    ]
    assert not found, "\n".join(found)


def test_no_exception_is_swallowed_whole() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}"
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", python_files(), ids=lambda path: path.stem)
def test_modules_say_what_they_are(path: object) -> None:
    source = path.read_text()  # type: ignore[attr-defined]
    assert not source.strip() or ast.get_docstring(ast.parse(source))
