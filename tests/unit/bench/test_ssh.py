"""`ssh:HOST` against a real sshd on loopback: what works, and what is left behind when something breaks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import onnxruntime
import pytest

import edgeicl.bench.devices.ssh as ssh
import edgeicl.bench.devices.ssh_shell as ssh_shell
from edgeicl.bench.devices.address import device_at
from edgeicl.bench.devices.device import Limits
from edgeicl.bench.devices.remote import PREFIX
from edgeicl.bench.devices.ssh_shell import CONFIG, parse_host
from edgeicl.emit.probe_graphs import Shape
from edgeicl.errors import BenchError, IntegrityError, SpecError
from edgeicl.probe import probe
from edgeicl.specs.catalog import load_target
from edgeicl.specs.quant_plan import Format
from tests.unit.bench.board import Board, wheels_of_this_python
from tests.unit.test_cli import exit_code

Make = Callable[..., Path]


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    if not (shutil.which("sshd") or Path("/usr/sbin/sshd").exists()) or not shutil.which("ssh"):
        pytest.skip("no sshd or ssh: the package openssh-server brings both")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    folder = tmp_path / "board"
    folder.mkdir()
    made = Board(folder)
    made.start()
    monkeypatch.setenv(CONFIG, str(folder / "config"))
    monkeypatch.setattr(ssh_shell, "_PAUSE_S", 0.1)
    yield made
    made.stop()


def bench(artifact: Path, *options: str) -> int:
    command = ["bench", str(artifact), "--on", "ssh:board", "--threads", "1", "--prompt-tokens", "8"]
    command += [
        "--decode-tokens",
        "4",
        "--repetitions",
        "2",
        "--warmup",
        "0",
        "--accept-noise",
        "--attempts",
        "1",
        *options,
    ]
    return exit_code(*command)


def test_a_result_as_from_this_computer(
    board: Board, make_artifact: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    core = sorted(os.sched_getaffinity(0))[0]
    assert bench(make_artifact(), "--json", "--tests", "pp4", "--cores", str(core)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fidelity"] == "measured"
    assert found["device"]["address"] == "ssh:board"
    assert found["device"]["affinity"] == [core]
    assert found["device"]["limits"] == [f"cores {core}, by taskset"]
    assert [len(row) for row in found["decode_samples_ms"]] == [4, 4]
    assert found["tests"][0]["kind"] == "pp"
    assert list(board.home.iterdir()) == []  # no identifier of onnxruntime's telemetry either


def test_answers_are_those_of_this_computer(
    board: Board, make_artifact: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"premise": f"w{i}", "hypothesis": f"w{i + 1}", "label": "entailment"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ["eval", str(make_artifact()), "--data", f"file:{tmp_path / 'rows.jsonl'}", "--threads", "1"]
    assert exit_code(*command, "--on", "ssh:board", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["device"], found["same_answers"]) == ("ssh:board", 1.0)


@pytest.mark.alone
def test_a_host_is_probed(board: Board) -> None:
    """Graphs are written here, sent, and timed there; the target says where its figures come from."""
    larger = Shape(layers=2, hidden=512, inner=1024, heads=8)
    target = load_target("host-cpu").model_copy(update={"formats": (Format(bits=4, block_size=32),)})
    found = probe(target, threads=1, shape=larger, seconds=0.3, device=device_at("ssh:board"))
    assert found.calibration is not None
    assert {cost.format.bits for cost in found.calibration.costs} >= {4}
    assert "edgeicl probe, measured" in found.calibration.source
    assert list(board.home.iterdir()) == []


def test_a_link_that_breaks_twice_is_taken_up(board: Board, make_artifact: Make) -> None:
    board.fault("break", "2")
    assert bench(make_artifact()) == 0
    assert (board.folder / "break").read_text().strip() != "2"  # negative control: it did break
    assert board.left() == []


def test_a_link_that_keeps_breaking(
    board: Board, make_artifact: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = make_artifact()
    board.fault("break", "99")
    assert bench(artifact) == 9
    assert "the link broke while" in capsys.readouterr().err
    assert board.left() == []
    board.mend()
    assert bench(artifact) == 0


def test_a_host_that_is_gone_in_mid_run_is_swept_by_the_next(
    board: Board, make_artifact: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = make_artifact()
    with device_at("ssh:board").open() as there:
        folder = Path(there.path("a")).parent
        there.place({"a": artifact / "model.onnx"})
        board.stop()
        with pytest.raises(BenchError, match="board can't be reached"):
            there.run("runner", {}, timeout_s=20)
    assert folder.exists()
    # As if that process had been killed: a pid that no process has.
    stale = folder.with_name(folder.name.replace(f"-{os.getpid()}-", "-4194399-"))
    folder.rename(stale)
    own = board.home / f"{PREFIX}somebody-1-else"
    own.mkdir()
    board.start()
    assert bench(artifact) == 0
    assert not stale.exists()
    assert board.left() == [own.name]  # negative control: another computer's stays


def test_a_wrong_hash(board: Board, make_artifact: Make, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = make_artifact()
    board.fault("corrupt")
    assert bench(artifact) == IntegrityError.exit_code
    assert "what arrived is not what was sent" in capsys.readouterr().err
    assert board.left() == []
    board.mend()
    assert bench(artifact) == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("df", ["tells", "fails"])
def test_a_full_disk(
    board: Board, make_artifact: Make, small_disk: Path, df: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known beforehand where df works, and met in mid-push where it doesn't."""
    artifact = make_artifact()
    board.stop()
    board.start(home=small_disk)
    if df == "fails":
        (board.programs / "df").write_text("#!/bin/sh\nexit 1\n")
        (board.programs / "df").chmod(0o755)
        (small_disk / "ballast").write_bytes(bytes(8 * 2**20 - 10 * 4096))
    assert bench(artifact) == 9
    told = capsys.readouterr().err
    assert ("has room for" if df == "tells" else "can't be written") in told
    assert [path.name for path in small_disk.iterdir()] == ["ballast"] * (df == "fails")
    board.stop()
    board.start()
    (board.programs / "df").unlink(missing_ok=True)
    assert bench(artifact) == 0


def test_a_missing_onnxruntime(
    board: Board,
    make_artifact: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    artifact = make_artifact()
    board.python("-S")
    assert bench(artifact) == 9
    told = capsys.readouterr().err
    assert "no numpy for its python3" in told
    assert "no onnxruntime for its python3" in told
    assert "--install" in told
    assert board.left() == []
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setattr(ssh, "fetch_wheels", lambda *asked: wheels_of_this_python(wheels))
    assert bench(artifact, "--install", "--json") == 0
    assert json.loads(capsys.readouterr().out)["conditions"]["runtime_version"] == onnxruntime.__version__
    assert board.left() == []
    board.python()
    assert bench(artifact) == 0


def test_a_program_that_takes_too_long_is_ended_there(board: Board, make_artifact: Make) -> None:
    artifact = make_artifact()
    with device_at("ssh:board").open() as there:
        there.place({name: artifact / name for name in ("model.onnx", "model.onnx.data")})
        request = {
            "action": "sustain", "seconds": 60.0, "window_s": 1.0, "model": there.path("model.onnx"),
            "engine": "fused", "prefix": None, "threads": 1, "vocabulary": 40, "prompt_tokens": 4,
            "decode_tokens": 2, "warmup_repetitions": 0, "least_s": 0,
        }  # fmt: skip
        with pytest.raises(BenchError, match="took more than 4 s"):
            there.run("runner", request, timeout_s=4)
        pid = int((Path(there.path("model.onnx")).parent / "pid").read_text())
        os.kill(pid, 0)
    time.sleep(0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert board.left() == []


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("ssh:pi", ("pi", None)),
        ("ssh:me@pi:2222", ("me@pi", 2222)),
        ("ssh:[::1]:2222", ("::1", 2222)),
        ("ssh:::1", ("::1", None)),
        ("ssh:2001:db8::10", ("2001:db8::10", None)),  # no port: without brackets all of it is the address
        ("ssh:me@[::1]:22", ("me@::1", 22)),
        ("ssh:[::1]", ("::1", None)),
    ],
)
def test_addresses(address: str, parsed: tuple[str, int | None]) -> None:
    assert parse_host(address) == parsed


@pytest.mark.parametrize("address", ["ssh:", "ssh:-oProxyCommand=touch /tmp/x"])
def test_an_address_is_never_an_option(address: str) -> None:
    with pytest.raises(SpecError, match="expected ssh:HOST"):
        device_at(address)


def test_limits_there() -> None:
    with pytest.raises(SpecError, match="a limit on another computer"):
        device_at("ssh:pi", Limits(memory_bytes=1000))
    with pytest.raises(SpecError, match=r"--install.*found with local"):
        device_at("local", install=True)


def test_a_host_that_nobody_knows(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchError, match=r"nowhere\.invalid can't be reached.*"):
        device_at("ssh:nowhere.invalid").open()


def test_names_are_words_not_scripts(board: Board, tmp_path: Path) -> None:
    """A file whose name would be a command, sent and hashed like any other."""
    hostile = "a'; touch $HOME/owned; '$(touch owned) b"
    file = tmp_path / "file"
    file.write_text("x")
    with device_at("ssh:board").open() as there:
        there.place({hostile: file})
        assert Path(there.path(hostile)).read_text() == "x"
        with pytest.raises(ValueError, match="expected a path within the workbench"):
            there.place({"../outside": file})
    assert list(board.home.iterdir()) == []
