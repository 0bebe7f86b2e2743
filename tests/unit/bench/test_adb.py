"""`adb` against a scripted phone: what works, what breaks, and that nothing of ours stays there."""

from __future__ import annotations

import json
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import edgeicl.bench.devices.adb as adb
from edgeicl.bench.devices.adb import battery_state, big_cores, core_speeds, thermal_state
from edgeicl.bench.devices.adb_shell import find_adb
from edgeicl.bench.devices.address import device_at
from edgeicl.bench.devices.bundle import LOADER
from edgeicl.bench.devices.device import Limits
from edgeicl.bench.devices.remote import PREFIX
from edgeicl.emit.probe_graphs import Shape
from edgeicl.errors import BenchError, IntegrityError, SpecError
from edgeicl.probe import probe
from edgeicl.specs.catalog import load_target
from edgeicl.specs.quant_plan import Format
from tests.unit.test_cli import exit_code

Make = Callable[..., Path]

BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 83
  scale: 100
  temperature: 291
  technology: Li-ion
"""
THERMAL = """IsStatusOverride: false
Thermal Status: 1
Cached temperatures:
\tTemperature{mValue=38.1, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=41.5, mType=0, mName=CPU7, mStatus=0}
\tTemperature{mValue=33.2, mType=3, mName=skin, mStatus=1}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=36.0, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=39.5, mType=0, mName=CPU7, mStatus=0}
\tTemperature{mValue=-40.0, mType=9, mName=npu, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=x}
Temperature static thresholds from HAL:
\tTemperature{mValue=95.0, mType=0, mName=CPU7, mStatus=0}
"""
TOOLS = {
    "uname": "echo aarch64",
    "dumpsys": 'cat "$ADB_PHONE/$1"',
    "settings": "echo 0",
    "cmd": '[ ! -e "$ADB_PHONE/faults/no-fixed-mode" ] && echo "$3" >> "$ADB_PHONE/fixed"',
    # Toybox takes a hexadecimal mask; util-linux does, too.
    "taskset": 'echo "$1" > "$ADB_PHONE/mask"; exec /usr/bin/taskset "$@"',
}


class Phone:
    """A folder that stands for a phone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("storage", "tools", "faults"):
            (folder / name).mkdir(parents=True)
        for name, script in TOOLS.items():
            (folder / "tools" / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / "tools" / name).chmod(0o755)
        (folder / "battery").write_text(BATTERY)
        (folder / "thermalservice").write_text(THERMAL)

    def fault(self, name: str) -> None:
        (self.folder / "faults" / name).touch()

    def mend(self) -> None:
        for path in (self.folder / "faults").iterdir():
            path.unlink()

    def left(self) -> list[str]:
        return [path.name for path in (self.folder / "storage").iterdir()]


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    """On PATH as adb, with a bundle whose loader runs this computer's Python."""
    made = Phone(tmp_path / "phone")
    bundle = tmp_path / "bundle.tar.gz"
    loader = tmp_path / "loader"
    loader.write_text(f'#!/bin/sh\nunset PYTHONHOME PYTHONPATH\nshift 3\nexec {sys.executable} "$@"\n')
    loader.chmod(0o755)
    with tarfile.open(bundle, "w:gz") as archive:
        archive.add(loader, LOADER)
    programs = tmp_path / "path"
    programs.mkdir()
    fake = Path(__file__).with_name("fake_adb.py")
    (programs / "adb").write_text(f'#!/bin/sh\nexec {sys.executable} {fake} "$@"\n')
    (programs / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("ADB_PHONE", str(made.folder))
    monkeypatch.setattr(adb, "require_sysroot", lambda: None)
    monkeypatch.setattr(adb, "build_bundle", lambda sysroot: bundle)
    monkeypatch.setattr(adb, "_SPEEDS", "printf '0 1800000\\n1 3200000\\n'")
    return made


def bench(artifact: Path, *options: str, on: str = "adb") -> int:
    command = [
        "bench",
        str(artifact),
        "--on",
        on,
        "--threads",
        "1",
        "--prompt-tokens",
        "8",
        "--accept-noise",
        "--attempts",
        "1",
    ]
    return exit_code(*command, "--decode-tokens", "4", "--repetitions", "2", "--warmup", "0", *options)


def test_a_result_with_heat_battery_and_big_cores(
    phone: Phone, make_artifact: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(make_artifact(), "--json", on="adb:SERIAL1") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["fidelity"], found["device"]["address"]) == ("measured", "adb:SERIAL1")
    assert found["device"]["affinity"] == [1]  # the faster of the two
    assert (phone.folder / "mask").read_text() == "2\n"
    assert found["device"]["limits"] == ["cores 1, its fastest, by taskset", "fixed performance mode: on"]
    told = {state["when"]: state["told_by_tools"] for state in found["states"]}
    expected = {
        "battery_percent": 83.0, "battery_c": 29.1, "charged_by": "USB", "thermal_status": "light",
        "cpu_c": 39.5, "skin_c": 33.2, "power_saver": False,
    }  # fmt: skip
    assert told["before"] == told["after"] == expected
    assert (phone.folder / "fixed").read_text().split() == ["true", "false"]
    assert phone.left() == []


def test_cores_that_are_asked_for(
    phone: Phone, make_artifact: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    phone.fault("no-fixed-mode")
    assert bench(make_artifact(), "--json", "--cores", "0") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device"]["affinity"] == [0]
    assert found["device"]["limits"] == [
        "cores 0, as asked, by taskset",
        "fixed performance mode: not to be had",
    ]
    assert not (phone.folder / "fixed").exists()


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        ("none", 9, "no phone is attached"),
        ("unauthorized", 9, "unauthorized"),
        ("offline", 9, "offline"),
        ("two", 9, "several phones are attached"),
        ("disconnect", 9, "could not be sent"),
        ("full", 9, "is full"),
        ("corrupt", IntegrityError.exit_code, "what arrived is not what was sent"),
        ("gone", 9, "is gone"),
    ],
)
def test_what_breaks_is_told_and_the_next_run_works(
    phone: Phone, make_artifact: Make, fault: str, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = make_artifact()
    phone.fault(fault)
    assert bench(artifact) == code
    error = capsys.readouterr().err
    assert told in error
    assert "next:" in error
    assert phone.left() == []
    phone.mend()
    assert bench(artifact) == 0
    assert phone.left() == []


def test_a_link_that_breaks_while_the_phone_is_made_ready(phone: Phone) -> None:
    """Wherever it breaks for a moment, nothing stays there, the mode of fixed performance least of all."""
    with device_at("adb").open():
        calls = int((phone.folder / "calls").read_text())
    assert calls >= 8
    for number in range(1, calls + 1):
        for name in ("calls", "fixed"):
            (phone.folder / name).unlink(missing_ok=True)
        (phone.folder / "faults" / "breaks-at").write_text(str(number))
        with pytest.raises(BenchError):
            device_at("adb").open()
        switched = phone.folder / "fixed"
        assert not switched.exists() or switched.read_text().split()[-1] == "false", f"call {number}"
        assert phone.left() == [], f"call {number}"
    phone.mend()
    with device_at("adb").open():
        pass
    assert phone.left() == []


@pytest.mark.alone
def test_a_probe_knows_all_cores_and_uses_the_big_ones(phone: Phone) -> None:
    base = load_target("host-cpu").model_copy(update={"formats": (Format(bits=4, block_size=32),)})
    shape = Shape(layers=1, hidden=512, inner=1024, heads=8)
    found = probe(base, threads=1, seconds=0.2, shape=shape, device=device_at("adb"))
    assert found.calibration is not None
    assert (phone.folder / "mask").read_text() == "2\n"
    assert probe(base, seconds=0.2, shape=shape, device=device_at("adb")).threads == min(
        base.threads, len(os.sched_getaffinity(0))
    )
    assert phone.left() == []


def test_what_a_killed_run_left_is_swept(phone: Phone, make_artifact: Make) -> None:
    artifact = make_artifact()
    there = device_at("adb").open()
    (folder,) = (phone.folder / "storage").iterdir()
    stale = folder.with_name(folder.name.replace(f"-{os.getpid()}-", "-4194399-"))
    folder.rename(stale)
    (folder.with_name(f"{PREFIX}somebody-1-else")).mkdir()
    assert bench(artifact) == 0
    assert phone.left() == [f"{PREFIX}somebody-1-else"]
    there.close()


def test_a_hot_phone_and_a_power_saver_are_told(
    phone: Phone, make_artifact: Make, caplog: pytest.LogCaptureFixture
) -> None:
    (phone.folder / "thermalservice").write_text("Thermal Status: 3\n")
    (phone.folder / "tools" / "settings").write_text("#!/bin/sh\necho 1\n")
    assert bench(make_artifact()) == 0
    assert "is warm already (severe)" in caplog.text
    assert "saves power" in caplog.text


def test_a_phone_of_another_kind(phone: Phone, make_artifact: Make, capsys: pytest.CaptureFixture[str]) -> None:
    (phone.folder / "tools" / "uname").write_text("#!/bin/sh\necho armv7l\n")
    assert bench(make_artifact()) == 9
    assert "armv7l; expected aarch64" in capsys.readouterr().err
    assert phone.left() == []


def test_without_adb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    with pytest.raises(BenchError, match="adb not found"):
        find_adb()
    (tmp_path / "sdk/platform-tools").mkdir(parents=True)
    (tmp_path / "sdk/platform-tools/adb").touch()
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    assert find_adb() == str(tmp_path / "sdk/platform-tools/adb")


def test_addresses_and_limits() -> None:
    for address in ("adb:", "adb:-s"):
        with pytest.raises(SpecError, match="expected adb or adb:SERIAL"):
            device_at(address)
    with pytest.raises(SpecError, match="a limit on another computer"):
        device_at("adb", Limits(memory_bytes=1))


def test_big_cores_on_paper() -> None:
    speeds = core_speeds("0 1800\n1 1800\n2 2400\n3 2400\n7 3300\nx y\n")
    assert big_cores(speeds, 1) == [7]
    assert big_cores(speeds, 3) == [2, 3, 7]
    assert big_cores(speeds, 4) == [1, 2, 3, 7]  # of equals the higher number
    assert big_cores({}, 4) == []
    assert big_cores({0: 0, 1: 0}, 1) == []  # none is known to be the fastest


def test_words_of_other_androids() -> None:
    assert battery_state("") == {}
    assert battery_state("  level: 5\n  temperature: -12\n") == {"battery_percent": 5.0, "battery_c": -1.2}
    assert thermal_state("Permission Denial: can't dump thermalservice") == {}
    assert thermal_state("Thermal Status: 0\nTemperature{mValue=NaN, mType=0") == {"thermal_status": "none"}
