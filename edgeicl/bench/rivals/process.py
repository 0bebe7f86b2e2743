"""Asks a rival's program: to build, to give logits, to measure. Each time a process of its own Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgeicl.bench.devices.output import last_lines, parse_answer
from edgeicl.bench.rivals.environment import FoundPython
from edgeicl.bench.rivals.rival import Logits, Rival
from edgeicl.bench.workload import Workload
from edgeicl.errors import BenchError

PROGRAM = "edgeicl.bench.rivals.program"
_PACKAGE = Path(__file__).parents[2]
_BUILD_TIMEOUT_S = 3600
RUN_TIMEOUT_S = 1800


@dataclass(frozen=True)
class RivalProcess:
    """A rival with the Python that runs it."""

    rival: Rival
    python: FoundPython

    def build(self, checkpoint: Path, folder: Path, *, context_tokens: int) -> None:
        """Writes what is deployed of the model in `checkpoint` into `folder`. BenchError where it fails."""
        request = self._request("build", folder, context_tokens) | {"checkpoint": str(checkpoint.resolve())}
        self._ask(request, threads=os.cpu_count() or 1, timeout_s=_BUILD_TIMEOUT_S)

    def last_logits(
        self, folder: Path, ids: Sequence[int], *, prompt_tokens: int, context_tokens: int
    ) -> Logits:
        """Logits [V] after the last of `ids`, the first of which are one prompt. BenchError where it fails."""
        with TemporaryDirectory() as scratch:
            output = Path(scratch) / "logits.npy"
            asked = {"ids": list(ids), "prompt_tokens": prompt_tokens, "output": str(output), "threads": 1}
            request = self._request("logits", folder, context_tokens) | asked
            self._ask(request, threads=1, timeout_s=RUN_TIMEOUT_S)
            logits: Logits = np.load(output)
        return logits

    def measure(
        self, folder: Path, workload: Workload, *, vocabulary: int, context_tokens: int
    ) -> dict[str, Any]:
        """What one process of the workload took. BenchError where it fails, or runs on other threads."""
        request = self._request("measure", folder, context_tokens) | asdict(workload)
        output = self._ask(
            request | {"vocabulary": vocabulary}, threads=workload.threads, timeout_s=RUN_TIMEOUT_S
        )
        found = parse_answer(output, who=self.rival.name, keys=("decode_ms", "first_token_ms"))
        if found["threads"] != workload.threads:
            raise BenchError(
                f"{self.rival.name} ran on {found['threads']} threads; expected {workload.threads}"
            )
        return found

    def _request(self, action: str, folder: Path, context_tokens: int) -> dict[str, Any]:
        return {
            "action": action,
            "module": self.rival.module,
            "settings": dict(self.rival.settings),
            "folder": str(folder.resolve()),
            "context_tokens": context_tokens,
        }

    def _ask(self, request: Mapping[str, Any], *, threads: int, timeout_s: float) -> str:
        return ask(
            self.python.path, PROGRAM, request, who=self.rival.name, threads=threads, timeout_s=timeout_s
        )


def ask(
    python: Path, program: str, request: Mapping[str, Any], *, who: str, threads: int, timeout_s: float
) -> str:
    """The stdout of the module `program` of this package, run by `python` on `request`.

    The only thing on its path besides its own libraries is this package, by a link in an otherwise empty
    folder: what lies beside the package here are our libraries. Engines may write much on stderr, which
    goes to a file: a pipe would wake this process in the middle of what is timed.

    Raises:
        BenchError: it failed or took longer than `timeout_s`; `who` is what messages call it.
    """
    with TemporaryDirectory() as scratch:
        (Path(scratch) / "edgeicl").symlink_to(_PACKAGE, target_is_directory=True)
        errors = Path(scratch) / "stderr"
        environment = os.environ | {
            "PYTHONPATH": scratch,
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        try:
            with errors.open("w") as stream:
                process = subprocess.Popen(
                    [str(python), "-m", program],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                    text=True,
                    cwd=scratch,
                    env=environment,
                    start_new_session=True,
                )
                output = _output(process, json.dumps(request), timeout_s)
        except subprocess.TimeoutExpired as error:
            action = request.get("action", "its run")
            raise BenchError(f"{who}: {action} took more than {timeout_s:.0f} s") from error
        if process.returncode != 0:
            action = request.get("action", "its run")
            raise BenchError(
                f"{who}: {action} ended with exit code {process.returncode}:\n"
                f"{last_lines(errors.read_text(errors='replace'))}"
            )
    return output


def _output(process: subprocess.Popen[str], text: str, timeout_s: float) -> str:
    """Its stdout. Whatever ends the wait ends all of its session: exporters have processes of their own."""
    try:
        return process.communicate(text, timeout=timeout_s)[0]
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
