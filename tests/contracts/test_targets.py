"""Every shipped target is one that the schema accepts, is called what its file is called, and has sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeicl.specs.loading import load_spec
from edgeicl.specs.target import Target

TARGETS = sorted((Path(__file__).parents[2] / "targets").glob("*.yaml"))
EXPECTED = {
    "host-cpu", "tiny-cpu", "cuda", "android-flagship-2024", "android-midrange-2024", "android-entry",
    "android-flagship-2025", "android-flagship-2023", "android-flagship-2022", "pixel-8", "galaxy-a36",
    "android-7-gen-3", "iphone-16", "rk3588-board", "qcs6490-board",
    "iphone-15", "raspberry-pi-4", "raspberry-pi-5", "arm-neon-dotprod", "arm-i8mm",
}  # fmt: skip
# Name and description say which device it is, `provider` which of two; the rest are figures.
FIGURES = {
    "threads", "instruction_features", "context_tokens", "runtime_overhead_bytes", "formats", "budget",
}  # fmt: skip


# Said, with a source, where the device takes others than fp32, or where it is known.
BESIDE_WEIGHTS = {"cache_bits", "activation_bits", "memory_bandwidth_bytes_per_second"}


def test_the_list_is_whole() -> None:
    assert {path.stem for path in TARGETS} == EXPECTED


def test_the_figures_are_all_that_a_target_has() -> None:
    """A field added to the schema is a figure that needs a source, or is listed here as none."""
    named = {"version", "name", "description", "provider", "calibration", "sources"}
    named |= {"prompt_tokens", "prompt_format"}  # choices, which shipped targets leave open
    assert FIGURES | BESIDE_WEIGHTS | named == set(Target.model_fields)


@pytest.mark.parametrize("path", TARGETS, ids=lambda path: path.stem)
def test_target(path: Path) -> None:
    target = load_spec(path, Target)
    assert target.name == path.stem
    assert set(target.sources) == FIGURES | (BESIDE_WEIGHTS & target.model_fields_set)
    assert all(len(source) > 20 for source in target.sources.values())
    assert target.calibration is None or target.calibration.source


@pytest.mark.parametrize("path", TARGETS, ids=lambda path: path.stem)
def test_formats_are_those_with_a_kernel(path: Path) -> None:
    target = load_spec(path, Target)
    assert max(entry.bits for entry in target.formats) == target.activation_bits
    assert {entry.bits for entry in target.formats} >= {4, 8}
    assert all(entry.symmetric for entry in target.formats)
    two_bit_blocks = {entry.block_size for entry in target.formats if entry.bits == 2}
    x86 = any(feature.startswith("avx") for feature in target.instruction_features)
    assert two_bit_blocks <= ({64, 128} if x86 else set())
    assert bool(two_bit_blocks) == x86


def test_phones_and_boards_are_predicted() -> None:
    """At least ten, each with its memory's bandwidth; those without a calibration rest on that alone."""
    found = [load_spec(path, Target) for path in TARGETS]
    known = [target for target in found if target.memory_bandwidth_bytes_per_second]
    assert len(known) >= 15
    assert sum(target.calibration is not None for target in known) >= 5
    for target in known:
        if target.calibration is not None:
            assert target.calibration.bandwidth_bytes_per_second < target.memory_bandwidth_bytes_per_second


def test_general_knowledge_is_marked() -> None:
    """Overheads of phones were not looked up; their source must say so."""
    for path in TARGETS:
        target = load_spec(path, Target)
        if "android" in target.name or "iphone" in target.name:
            assert "general knowledge, not looked up" in target.sources["runtime_overhead_bytes"]
