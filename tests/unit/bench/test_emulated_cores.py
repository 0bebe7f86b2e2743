"""qemu and the aarch64 system where they are missing, old, or not what was named; the doctor's words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgeicl.bench.devices.qemu_program as qemu_program
from edgeicl.bench.devices.address import device_at
from edgeicl.bench.devices.debian_packages import DebianPackages
from edgeicl.bench.devices.device import Limits
from edgeicl.bench.devices.qemu_program import require_qemu, version_of
from edgeicl.bench.devices.sysroot import NAMED_BY, require_sysroot
from edgeicl.bench.devices.wheels import PythonThere
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
    with pytest.raises(BenchError, match="apt-get, dpkg-deb not found"):
        DebianPackages(tmp_path, "arm64").update()


def test_the_doctor_tells_each_thing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path))
    assert exit_code("doctor", "--json") == 0
    told = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert told["torch"]["state"] == "ok"
    assert told["aarch64 system"]["state"] == "absent"
    assert "doctor --arm" in told["aarch64 system"]["next_step"]
