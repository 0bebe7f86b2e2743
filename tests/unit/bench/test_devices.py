"""Addresses of devices, and this computer as one of them."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from edgeicl.bench.devices.address import device_at
from edgeicl.bench.devices.local import THIS_COMPUTER, LocalDevice
from edgeicl.bench.devices.programs import PROGRAMS, program_files
from edgeicl.errors import BenchError, SpecError
from tests.contracts.source_tree import imports_of


def test_local_is_this_computer() -> None:
    assert device_at("local") == THIS_COMPUTER
    assert isinstance(THIS_COMPUTER, LocalDevice)
    assert (THIS_COMPUTER.fidelity, THIS_COMPUTER.provider) == ("measured", "cpu")


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(SpecError, match=r"--on.*found telnet:host; expected one of local"):
        device_at("telnet:host")


@pytest.mark.parametrize("address", ["local:3", "ssh:host:99999", "ssh:host:0", "ssh:host:abc"])
def test_what_an_address_cannot_have(address: str) -> None:
    with pytest.raises(SpecError, match="--on"):
        device_at(address)


def test_a_placed_file_stays_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("x")
    with THIS_COMPUTER.open() as bench:
        bench.place({"b": file})
        assert bench.path("b") == str(file)
    assert file.read_text() == "x"


def test_a_program_that_takes_too_long_is_ended() -> None:
    def children() -> str:
        return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()

    with THIS_COMPUTER.open() as bench, pytest.raises(BenchError, match="did not finish within 0 s"):
        bench.run("graph_times", {"threads": 1, "graphs": []}, timeout_s=0.05)
    assert children() == ""


def test_programs_need_numpy_onnxruntime_and_each_other() -> None:
    """As a device has them: every file of ours that one imports lies beside it.

    Writing a prefix needs safetensors, inside its function, and no device writes one.
    """
    files = program_files()
    assert {f"{name}.py" for name in PROGRAMS} <= set(files)
    names = {name.removesuffix(".py") for name in files}
    for path in files.values():
        for entry in imports_of(path):
            parts = entry.module.split(".")
            if parts[0] == "edgeicl":
                assert parts[-1] in names, entry
            else:
                written = (path.name, entry.module) == ("prefix_file.py", "safetensors.numpy")
                assert written or parts[0] in {"numpy", "onnxruntime", *names, *sys.stdlib_module_names}, entry
