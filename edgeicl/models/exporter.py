"""Optimum's exporter, in a process of its own: it needs a transformers below 4.58, which nothing else does.

It is looked for beside this interpreter, or beside the one that `EDGEICL_EXPORTER_PYTHON` names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from edgeicl.errors import DataError
from edgeicl.specs.manifest import MODEL_FILE

EXPORTER_PYTHON = "EDGEICL_EXPORTER_PYTHON"
TASK = "text-generation-with-past"
_TIMEOUT_S = 3600
_INSTALL = (
    'pip install "edgeicl[export]"; it needs transformers below 4.58, so where yours must stay newer, use an '
    f"environment of its own and name its interpreter: {EXPORTER_PYTHON}=/path/to/python"
)


def exporter_python() -> Path:
    """The interpreter that exports."""
    return Path(os.environ.get(EXPORTER_PYTHON) or sys.executable)


@lru_cache(maxsize=4)
def exporter_versions(python: Path) -> dict[str, str]:
    """Versions of what exports, in the interpreter `python`.

    Raises:
        DataError: optimum-onnx is not there, or `python` can't be run.
    """
    code = (
        "import importlib.metadata as m, json; "
        "print(json.dumps({n: m.version(n) for n in ('optimum-onnx', 'transformers', 'torch')}))"
    )
    finished = _run([str(python), "-c", code])
    if finished.returncode != 0:
        raise DataError(f"optimum-onnx is not installed beside {_named(str(python))}", next_step=_INSTALL)
    versions: dict[str, str] = json.loads(finished.stdout)
    return versions


@lru_cache(maxsize=4)
def exports(model_type: str, python: Path) -> bool:
    """Whether the exporter beside `python` takes causal language models of this type, with a cache."""
    code = (
        "import sys; import optimum.exporters.onnx.model_configs; "
        "from optimum.exporters.tasks import TasksManager as t; "
        "found = t.get_supported_tasks_for_model_type("
        "sys.argv[1], exporter='onnx', library_name='transformers'); "
        f"print('yes' if '{TASK}' in found else 'no')"
    )
    # an unknown type is a KeyError there
    return _run([str(python), "-c", code, model_type]).stdout.split()[-1:] == ["yes"]


def export(checkpoint: Path, output: Path, *, python: Path) -> None:
    """Optimum's export of a checkpoint folder, by its own command.

    Raises:
        DataError: it failed, or took an hour.
    """
    model = ["--model", str(checkpoint), "--task", TASK]
    command = [str(python), "-m", "optimum.exporters.onnx", *model, str(output)]
    try:
        finished = _run(command)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"optimum did not export {checkpoint} within {_TIMEOUT_S} s") from error
    if not (output / MODEL_FILE).is_file():
        lines = "\n".join(finished.stderr.strip().splitlines()[-15:]) or "(nothing)"
        raise DataError(f"optimum could not export {checkpoint} (exit code {finished.returncode}):\n{lines}")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        # its interpreter must import its own packages, not those of this one
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=environment
        )
    except OSError as error:
        raise DataError(
            f"{_named(command[0])} can't be run: {error.strerror}", next_step="name a Python interpreter"
        ) from error


def _named(python: str) -> str:
    """The interpreter, with the variable that names it if one does."""
    return f"{EXPORTER_PYTHON}={python}" if os.environ.get(EXPORTER_PYTHON) == python else python
