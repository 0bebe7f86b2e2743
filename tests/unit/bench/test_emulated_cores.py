"""qemu and the aarch64 system where they are missing, old, or not what was named; the doctor's words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import edgeicl.bench.devices.qemu_program as qemu_program
import edgeicl.bench.devices.wheels as wheels
from edgeicl.bench.devices.address import device_at
from edgeicl.bench.devices.debian_packages import DebianPackages
from edgeicl.bench.devices.device import Limits
from edgeicl.bench.devices.qemu_program import require_qemu, version_of
from edgeicl.bench.devices.sysroot import NAMED_BY, require_sysroot
from edgeicl.bench.devices.wheels import PythonThere, fetch_wheels, requirements_like_here
from edgeicl.errors import BenchError, SpecError
from tests.unit.test_cli import exit_code


def program(folder: Path, says: str) -> Path:
    path = folder / qemu_program.PROGRAM
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_an_old_qemu_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path / "cache"))
    old = program(tmp_path, "qemu-aarch64 version 7.2.0 (Debian)")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert version_of(old) == (7, 2)
    with pytest.raises(BenchError, match=r"no qemu-aarch64 of version 10 or newer.*\n.*doctor --arm"):
        require_qemu()
    program(tmp_path, "qemu-aarch64 version 10.1.2")
    assert require_qemu().version == "10.1"


def test_what_is_no_qemu_has_no_version(tmp_path: Path) -> None:
    assert version_of(program(tmp_path, "hello")) == (0, 0)
    assert version_of(tmp_path / "absent") == (0, 0)


def test_a_system_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv(NAMED_BY, raising=False)
    with pytest.raises(BenchError, match="no aarch64 system to run yet"):
        require_sysroot()
    monkeypatch.setenv(NAMED_BY, str(tmp_path / "absent"))
    with pytest.raises(BenchError, match=f"{NAMED_BY} names .*absent, which is no folder"):
        require_sysroot()
    monkeypatch.setenv(NAMED_BY, str(tmp_path))
    with pytest.raises(BenchError, match="has no usr/bin/python3"):
        assert require_sysroot().python


def test_addresses_of_cores() -> None:
    assert device_at("qemu:max").fidelity is None
    with pytest.raises(SpecError, match="expected qemu:CORE"):
        device_at("qemu")
    with pytest.raises(SpecError, match="limits of an emulated core"):
        device_at("qemu:max", Limits(cores=(0,)))


def test_tags_of_wheels_for_a_glibc() -> None:
    there = PythonThere("3.11", "aarch64", 19).platforms
    assert there == [f"manylinux_2_{n}_aarch64" for n in (19, 18, 17)] + ["manylinux2014_aarch64"]


def test_packages_need_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match="apt-get, dpkg-deb, dpkg not found"):
        DebianPackages(tmp_path, "arm64").update()


def test_the_doctor_needs_apt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Off Debian the first thing that is missing is apt, whatever is asked for first."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path / "cache"))
    assert exit_code("doctor", "--arm") == 9
    assert "packages are fetched by Debian's or Ubuntu's apt" in capsys.readouterr().err


def test_the_release_that_runs_here_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the name that all platforms have wheels of, whichever of its distributions is installed."""
    installed = {"onnxruntime-gpu": "1.30.0"}

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(wheels, "version", version)
    assert requirements_like_here() == ["onnxruntime==1.30.0", "numpy"]
    installed["onnxruntime"] = "1.31.0"
    assert requirements_like_here()[0] == "onnxruntime==1.31.0"
    installed.clear()
    with pytest.raises(BenchError, match="onnxruntime is not installed here"):
        requirements_like_here()


def test_wheels_are_fetched_once_and_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path))
    numpy = iter(["2.9.0", "2.10.0"])
    there = PythonThere("3.11", "aarch64", 28)

    def download(requirements: Sequence[str], python: PythonThere, into: Path) -> None:
        if requirements[0].endswith("0"):
            (into / f"numpy-{next(numpy)}.whl").touch()
        else:
            (into / "half.whl").touch()
            raise BenchError("the link broke")

    monkeypatch.setattr(wheels, "_download", download)
    first = fetch_wheels(["onnxruntime==1.0", "numpy"], there)
    assert [path.name for path in first] == ["numpy-2.9.0.whl"]
    assert fetch_wheels(["onnxruntime==1.0", "numpy"], there) == first  # without asking pip again
    assert [p.name for p in fetch_wheels(["onnxruntime==2.0", "numpy"], there)] == ["numpy-2.10.0.whl"]
    with pytest.raises(BenchError):
        fetch_wheels(["onnxruntime==1.1"], there)
    assert not [path for path in (tmp_path / "wheels").rglob("half.whl") if "partial" not in str(path)]


def test_the_doctor_tells_each_thing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path))
    assert exit_code("doctor", "--json") == 0
    told = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert told["torch"]["state"] == "ok"
    assert told["aarch64 system"]["state"] == "absent"
    assert "doctor --arm" in told["aarch64 system"]["next_step"]
