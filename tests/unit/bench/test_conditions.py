"""Where a measurement was taken, told beside every target."""

from __future__ import annotations

import pytest

from edgeicl.bench.conditions import whereabouts
from edgeicl.specs.catalog import load_target
from tests.unit.samples import bench_result

AT = bench_result().conditions.model_copy(update={"processor": "AMD EPYC"})


@pytest.mark.parametrize(
    ("target", "machine", "providers", "on_target"),
    [
        ("host-cpu", "Linux x86_64", ("CPUExecutionProvider",), True),
        ("tiny-cpu", "Windows AMD64", ("CPUExecutionProvider",), True),
        ("tiny-cpu", "Darwin arm64", ("CPUExecutionProvider",), False),
        ("raspberry-pi-5", "Linux x86_64", ("CPUExecutionProvider",), False),
        ("raspberry-pi-5", "Linux aarch64", ("CPUExecutionProvider",), True),
        ("cuda", "Linux x86_64", ("CPUExecutionProvider",), False),
        ("cuda", "Linux x86_64", ("CUDAExecutionProvider",), True),
    ],
)
def test_another_kind_of_processor_is_not_the_target(
    target: str, machine: str, providers: tuple[str, ...], on_target: bool
) -> None:
    at = AT.model_copy(update={"machine": machine, "providers": providers})
    said = whereabouts(at, load_target(target))
    assert said.startswith(f"on this computer ({machine}, AMD EPYC)")
    assert said.endswith(", not on the target") != on_target
