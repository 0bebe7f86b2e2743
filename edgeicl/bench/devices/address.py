"""From what `--on` says to the device it names."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from edgeicl.bench.devices.device import Device, Limits
from edgeicl.errors import Problem, SpecError

# Kind -> module and class, imported when asked for; with the form of its address.
_KINDS = {
    "local": ("edgeicl.bench.devices.local:LocalDevice", "local"),
    "cuda": ("edgeicl.bench.devices.cuda:CudaDevice", "cuda[:NUMBER]"),
    "ssh": ("edgeicl.bench.devices.ssh:SshDevice", "ssh:HOST"),
    "adb": ("edgeicl.bench.devices.adb:AdbDevice", "adb[:SERIAL]"),
    "qemu": ("edgeicl.bench.devices.qemu:QemuDevice", "qemu:CORE"),
}
_INSTALLING = ("ssh",)


def device_at(
    address: str, limits: Limits | None = None, *, install: bool = False, option: str = "--on"
) -> Device:
    """The device that `address` names, such as `local`. Nothing is asked of it yet.

    Raises:
        SpecError: no such kind, or an address that kind doesn't take.
    """
    kind = address.partition(":")[0]
    if kind not in _KINDS:
        forms = ", ".join(form for _, form in _KINDS.values())
        raise SpecError("device", [Problem(option, f"found {address}", f"expected one of {forms}")])
    module, _, name = _KINDS[kind][0].partition(":")
    if install and kind not in _INSTALLING:
        found = Problem("--install", f"found with {address}", f"expected with {', '.join(_INSTALLING)}: alone")
        raise SpecError("device", [found])
    make: Callable[[str, Limits, bool], Device] = getattr(import_module(module), name)
    return make(address, limits or Limits(), install)
