"""What every test here needs: qemu 10 and the aarch64 system, which `edgeicl doctor --arm` brings."""

from __future__ import annotations

import pytest

from edgeicl.bench.devices.qemu_program import find_qemu
from edgeicl.bench.devices.sysroot import find_sysroot


@pytest.fixture(scope="session", autouse=True)
def _arm() -> None:
    missing = [
        name
        for name, found in (("qemu-aarch64 10 or newer", find_qemu()), ("an aarch64 system", find_sysroot()))
        if found is None
    ]
    if missing:
        pytest.skip(f"missing: {' and '.join(missing)}; `edgeicl doctor --arm` brings that")
