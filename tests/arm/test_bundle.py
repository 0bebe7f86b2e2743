"""What a phone is sent runs from its own files alone: its loader, called by name, with no root folder given."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from edgeicl.bench.devices.bundle import LOADER, build_bundle, command, environment
from edgeicl.bench.devices.programs import ENVIRONMENT, program_files
from edgeicl.bench.devices.qemu_program import require_qemu
from edgeicl.bench.devices.sysroot import require_sysroot
from edgeicl.specs.quant_plan import Format
from tests.unit.bench.conftest import TINY, build_artifact, tiny_task, tiny_tokenizer


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle unpacked beside our programs and an artifact, as it lies on a phone."""
    folder = tmp_path_factory.mktemp("phone") / "workbench"
    folder.mkdir()
    with tarfile.open(build_bundle(require_sysroot())) as archive:
        # Python 3.11 has the filter since 3.11.4
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    for name, path in program_files().items():
        shutil.copyfile(path, folder / name)
    task = tiny_task({"entailment": "yes", "contradiction": "no"})
    artifact = build_artifact(
        folder.with_name("artifact"), TINY, Format(bits=8, block_size=32), tiny_tokenizer(), task
    )
    for name in ("model.onnx", "model.onnx.data"):
        shutil.copyfile(artifact / name, folder / name)
    return folder


def run(phone: Path, words: list[str], request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(require_qemu().path), "-cpu", "cortex-a76", *words],
        input=json.dumps(request),
        cwd=phone,
        env={**ENVIRONMENT, **environment(), "PATH": "/nowhere", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


REQUEST = {
    "action": "measure", "model": "model.onnx", "engine": "fused", "prefix": None, "threads": 1,
    "vocabulary": 40, "prompt_tokens": 6, "decode_tokens": 3, "repetitions": 1, "warmup_repetitions": 0,
    "least_s": 0,
    "bytes_per_token": None,
}  # fmt: skip


def test_the_runner_measures_there(phone: Path) -> None:
    done = run(phone, [*command(), "runner.py"], REQUEST)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [len(row) for row in found["decode_ms"]] == [3]
    assert found["device"]["architecture"] == "aarch64"
    assert "dotprod" in found["device"]["features"]


def test_it_needs_its_own_loader(phone: Path) -> None:
    """Negative control: without it there is nothing on this computer that could take its place."""
    (phone / LOADER).rename(phone / "elsewhere")
    try:
        assert run(phone, [*command(), "runner.py"], REQUEST).returncode != 0
    finally:
        (phone / "elsewhere").rename(phone / LOADER)


def test_a_bundle_is_small_and_has_no_tests(phone: Path) -> None:
    assert build_bundle(require_sysroot()).stat().st_size < 60e6
    assert not [path for path in phone.rglob("*") if path.name in ("tests", "test", "__pycache__")]
