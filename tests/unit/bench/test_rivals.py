"""Rivals in processes of their own: built, checked, measured, and each way that they can't be."""

from __future__ import annotations

import os
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeicl.bench.rivals.contender as contender_module
import edgeicl.bench.rivals.table as table
from edgeicl.bench.compare import compare, prepare
from edgeicl.bench.rivals.checkpoint import write_random_checkpoint
from edgeicl.bench.rivals.contender import RivalBuilder, relative_error
from edgeicl.bench.rivals.environment import find_python
from edgeicl.bench.rivals.process import ask
from edgeicl.bench.rivals.rival import Rival, RivalEnvironment
from edgeicl.bench.workload import Workload
from edgeicl.errors import BenchError, SpecError
from edgeicl.report.comparison_facts import comparison_tables
from edgeicl.specs.comparison import Comparison
from edgeicl.store import Store, folder_hashes
from tests.contracts.source_tree import REPOSITORY
from tests.unit.bench.conftest import TINY
from tests.unit.bench.fake_rival import fake

Make = Callable[..., Path]
ABSENT = RivalEnvironment("absent", ("no-such-engine==1.0",), "it is made up")
WORKLOAD = Workload(1, 4, 2, repetitions=1, warmup_repetitions=0)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """This Python as an environment that has the made-up engine too."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{REPOSITORY}" exec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return path


def pretend(monkeypatch: pytest.MonkeyPatch, *rivals: Rival) -> list[str]:
    """Makes these the only rivals, and an engine of this file the reference; their names."""
    monkeypatch.setattr(table, "RIVALS", {rival.name: rival for rival in rivals})
    monkeypatch.setattr(contender_module, "REFERENCE", fake("reference"))
    return [rival.name for rival in rivals]


def test_a_comparison_from_end_to_end(
    monkeypatch: pytest.MonkeyPatch, make_artifact: Make, here: Path, tmp_path: Path
) -> None:
    names = pretend(
        monkeypatch,
        fake("good"),
        fake("wrong", shift=0.3),
        fake("unbuilt", fails_at="build"),
        fake("falls", fails_at="measure"),
        fake("greedy", threads=2),
        fake("absent", environment=ABSENT),
    )
    contest = prepare(
        [make_artifact("a"), make_artifact("b", labels_alone=True)],
        WORKLOAD,
        rivals=names,
        model=None,
        store=Store(tmp_path / "store"),
        pythons={"fake": here},
    )
    found = compare(contest, rounds=2)
    assert [entry.name for entry in found.rivals] == ["good"]
    reasons = {entry.name: entry.reason for entry in found.not_measured}
    assert set(reasons) == {"wrong", "unbuilt", "falls", "greedy", "absent"}
    # ‖cos(n + 0.3) − cos(n)‖ / ‖cos(n)‖ is 2 sin(0.15) = 0.3 but for the ends of the sum.
    assert "wrong computes something else than the student: its logits are 0.3" in reasons["wrong"]
    assert "a shape that I don't know" in reasons["unbuilt"]
    assert "I fell over in the middle" in reasons["falls"]
    assert "greedy ran on 2 threads; expected 1" in reasons["greedy"]
    assert "no-such-engine not installed beside" in reasons["absent"]
    assert "--python absent=PATH" in reasons["absent"]
    good = found.rivals[0]
    assert (good.file_bytes, good.logit_error, len(good.rounds)) == (5, 0.0, 2)
    assert good.versions["numpy"] == np.__version__
    whole, labels = found.artifacts
    assert whole.bytes_per_token is not None
    assert len(whole.ceiling_shares) == 2
    assert labels.ceiling_shares == ()
    assert [(entry.artifact, entry.decode is None) for entry in found.pairings] == [("a", False), ("b", True)]
    assert found.pairings[0].file_bytes == whole.file_bytes / 5
    assert any("b: nothing is decoded" in note for note in found.notes)
    assert Comparison.model_validate_json(found.model_dump_json()) == found
    tables = comparison_tables(found)
    assert [facts.heading for facts in tables] == ["Comparison", "Ratios of a", "Ratios of b", "Not measured"]
    assert [row[0] for row in tables[0].rows] == ["a", "b", "good"]
    assert all(len(row) == len(facts.headers) for facts in tables for row in facts.rows)


def test_no_rival_at_all_is_an_error(
    monkeypatch: pytest.MonkeyPatch, make_artifact: Make, here: Path, tmp_path: Path
) -> None:
    pretend(monkeypatch, fake("good"), fake("absent", environment=ABSENT))
    with pytest.raises(BenchError, match=r"(?s)nothing to compare with.*absent: no-such-engine"):
        prepare(
            [make_artifact()],
            WORKLOAD,
            rivals=["absent"],
            model=None,
            store=Store(tmp_path / "store"),
            pythons={"fake": here},
        ).run(1)


def test_an_unknown_environment_lists_all() -> None:
    with pytest.raises(SpecError, match=r"no environment 'torch'; expected any of bitsandbytes, ctranslate2"):
        table.environments_named(["torch"])


def test_an_interpreter_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"(?s)absent can't be run: No such file.*--python fake=PATH"):
        find_python(fake("x").environment, given=tmp_path / "absent", install=False)
    with pytest.raises(BenchError, match="it doesn't answer as Python does"):
        find_python(fake("x").environment, given=Path("/bin/true"), install=False)


def test_the_interpreter_s_own_libraries_count_not_ours(tmp_path: Path) -> None:
    """An interpreter without site-packages has nothing, whatever this environment has."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(
        BenchError, match=r"(?s)optimum-onnx, .* not installed beside.*transformers below 4\.58"
    ):
        find_python(table.RIVALS["optimum-int8"].environment, given=bare, install=True)


@pytest.mark.parametrize("offered", [True, False])
def test_environments_are_made_by_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offered: bool) -> None:
    """From a folder of wheels instead of an index; with none in it, as without a network."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    if offered:
        about = "no_such_engine-1.0.dist-info"
        with zipfile.ZipFile(wheels / "no_such_engine-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("no_such_engine.py", "")
            wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: no-such-engine\nVersion: 1.0\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path / "cache"))
    if offered:
        found = find_python(ABSENT, given=None, install=True)
        assert found.versions["no-such-engine"] == "1.0"
        assert found.path.is_relative_to(tmp_path / "cache")
        assert find_python(ABSENT, given=None, install=False) == found
        return
    with pytest.raises(BenchError, match=r"(?s)absent could not be installed.*no-such-engine.*with a network"):
        find_python(ABSENT, given=None, install=True)
    with pytest.raises(BenchError, match="not installed beside"):
        find_python(ABSENT, given=None, install=False)


def test_a_rival_that_takes_too_long_takes_its_own_processes_along(tmp_path: Path) -> None:
    """An exporter runs in a process of the rival's; it would go on beside whatever is measured next."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nsleep 30 &\necho $! > {tmp_path}/pid\nwait\n")
    python.chmod(0o755)
    with pytest.raises(BenchError, match="slow: build took more than 1 s"):
        ask(python, "module", {"action": "build"}, who="slow", threads=1, timeout_s=1)
    pid = int((tmp_path / "pid").read_text())
    stat = Path(f"/proc/{pid}/stat")
    for _ in range(50):  # it is init's to bury
        if not stat.exists() or stat.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail(f"process {pid} still runs")


def test_the_error_of_logits_on_paper() -> None:
    expected = np.array([3.0, 4.0], np.float32)
    assert relative_error(np.array([3.0, 3.0], np.float32), expected) == pytest.approx(0.2)
    assert relative_error(np.array([3.0], np.float32), expected) == float("inf")
    assert not relative_error(np.array([np.nan, 4.0], np.float32), expected) <= 1.0


def given_pythons() -> dict[str, Path]:
    """EDGEICL_TEST_RIVAL_PYTHONS: NAME=PATH,... for engines that this environment doesn't have."""
    pairs: list[Any] = [
        text.partition("=") for text in os.environ.get("EDGEICL_TEST_RIVAL_PYTHONS", "").split(",")
    ]
    return {name: Path(path) for name, _, path in pairs if name}


# Those that need a GPU are tested on one, in tests/gpu, and their code on the CPU in test_cuda_rivals.py.
ON_CPU = [r.name for r in table.RIVALS.values() if r.provider == "cpu" and r != table.REFERENCE]


@pytest.mark.parametrize("name", ON_CPU)
def test_each_rival_computes_the_student(name: str, tmp_path: Path) -> None:
    """Of its real engine, where that is installed; measured once too."""
    rival, pythons = table.RIVALS[name], given_pythons()
    try:
        find_python(rival.environment, given=pythons.get(rival.environment.name), install=False)
    except BenchError as error:
        pytest.skip(str(error).splitlines()[0])
    config = TINY | {"hidden_size": 128, "word_embed_proj_dim": 128, "ffn_dim": 256}
    checkpoint = write_random_checkpoint(tmp_path / "student", config)
    builder = RivalBuilder(
        checkpoint=checkpoint,
        checkpoint_digests=folder_hashes(checkpoint),
        vocabulary=config["vocab_size"],
        context_tokens=48,
        store=Store(tmp_path / "store"),
        pythons=pythons,
    )
    reference = builder.reference()
    contender = builder.contender(rival, reference)
    assert 0 < contender.logit_error <= rival.logit_tolerance
    workload = Workload(1, 6, 3, repetitions=1, warmup_repetitions=0, least_s=0.2)
    run = contender.measure(workload, vocabulary=40)
    assert len(run["decode_ms"]) > 1
    assert len(run["decode_ms"][0]) == 3
    # Negative control: what another context gives is not what this rival may give.
    with pytest.raises(BenchError, match="computes something else"):
        builder.contender(rival, np.roll(reference, 1))
