"""The README's commands exist, and it documents every exit code."""

from __future__ import annotations

import re
import shlex

import pytest
import typer.main

from edgeicl import errors
from edgeicl.cli import app
from tests.contracts.source_tree import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def commands_in(text: str) -> list[list[str]]:
    """Words of every `edgeicl ...` in the shell blocks of `text`."""
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.split("&&")]
    words = [shlex.split(part, comments=True) for part in parts]
    return [found[found.index("edgeicl") :] for found in words if "edgeicl" in found]


def test_the_two_commands_come_first() -> None:
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", README, re.DOTALL)
    assert blocks[0].strip().splitlines() == [
        "pip install . && edgeicl compile recipes/quickstart.yaml",
        'pip install -e ".[test]" && pytest',
    ]


@pytest.mark.parametrize("words", commands_in(README), ids=" ".join)
def test_commands_and_their_options_exist(words: list[str]) -> None:
    position = next((i for i, word in enumerate(words[1:], 1) if not word.startswith("-")), None)
    if position is None:  # options of edgeicl itself
        known = typer.main.get_command(app).params
        assert set(words[1:]) <= {option for p in known for option in p.opts} | {"--help"}
        return
    command = COMMANDS[words[position]]
    rest = words[position + 1 :]
    if hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    options = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    used = {word.split("=")[0] for word in rest if word.startswith("-")}
    assert used <= options | {"--help"}


def test_every_command_is_shown() -> None:
    shown = {word for words in commands_in(README) for word in words}
    assert set(COMMANDS) <= shown


def exit_codes() -> dict[str, int]:
    found = [errors.EdgeiclError]
    for kind in found:
        found += kind.__subclasses__()
    return {kind.__name__: kind.exit_code for kind in found}


@pytest.mark.parametrize(("name", "code"), exit_codes().items())
def test_every_exit_code_is_documented(name: str, code: int) -> None:
    rows = dict(re.findall(r"^\| (\d+) \| `?(\w+)`?", README, re.MULTILINE))
    assert rows.get(str(code)) == name


def test_exit_codes_are_distinct() -> None:
    assert len(set(exit_codes().values())) == len(exit_codes()) == 11
