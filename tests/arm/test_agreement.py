"""Every format that an ARM target ships, on three cores: logits beside x86's and beside fp32's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgeicl.bench.agreement import EXACT, ROUNDED, agreement
from edgeicl.bench.answers import unpacked
from edgeicl.bench.devices.address import device_at
from edgeicl.bench.devices.device import Device
from edgeicl.bench.devices.local import THIS_COMPUTER
from edgeicl.bench.devices.qemu import CORES
from edgeicl.bench.rivals.checkpoint import write_random_checkpoint
from edgeicl.specs.loading import load_spec
from edgeicl.specs.quant_plan import BY_ROW, Format
from edgeicl.specs.target import Target
from tests.unit.bench.conftest import TINY, build_artifact, tiny_task, tiny_tokenizer

TARGETS = [load_spec(path, Target) for path in sorted((Path(__file__).parents[2] / "targets").glob("*.yaml"))]
FORMATS = sorted({f for target in TARGETS if target.provider == "cpu" for f in target.formats}, key=str)
CONFIG = TINY | {"hidden_size": 256, "ffn_dim": 512, "num_attention_heads": 4, "word_embed_proj_dim": 256}
FEATURES = {"cortex-a72": set(), "cortex-a76": {"dotprod"}, "max": {"dotprod", "i8mm", "bf16", "sve"}}
IDS = list(range(4, 36))
# What rounding weights does, measured on x86: far above what another processor does.
FROM_FP32 = {2: 1.5, 4: 0.5, 8: 0.05, 16: 1e-3, 32: 1e-4}

Logits = npt.NDArray[np.float32]


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Format, Path]:
    """The same random weights in every format."""
    root = tmp_path_factory.mktemp("formats")
    checkpoint = write_random_checkpoint(root / "checkpoint", CONFIG)
    task = tiny_task({"entailment": "yes", "contradiction": "no"})
    return {
        format_: build_artifact(
            root / str(format_).replace("/", "-"),
            CONFIG,
            format_,
            tiny_tokenizer(),
            task,
            checkpoint=checkpoint,
            scale=5.0,
        )
        for format_ in FORMATS
    }


def logits_on(device: Device, folders: Mapping[Format, Path]) -> dict[Format, Logits]:
    """Logits after a prompt and after each of eight steps, of all artifacts in one process."""
    with device.open() as bench:
        files = {}
        for number, folder in enumerate(folders.values()):
            files |= {f"{number}/{name}": folder / name for name in ("model.onnx", "model.onnx.data")}
        bench.place(files)
        requests: list[dict[str, Any]] = [
            {
                "action": "logits",
                "model": bench.path(f"{number}/model.onnx"),
                "engine": "fused",
                "prefix": None,
                "threads": 1,
                "prompt": IDS[:24],
                "steps": IDS[24:],
            }
            for number in range(len(folders))
        ]
        found = bench.run("answers", {"requests": requests}, timeout_s=300)["answers"]
    return {format_: unpacked(one["logits"]) for format_, one in zip(folders, found, strict=True)}


@pytest.fixture(scope="session")
def here(artifacts: Mapping[Format, Path]) -> dict[Format, Logits]:
    return logits_on(THIS_COMPUTER, artifacts)


def distance(found: Logits, expected: Logits) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_the_formats_are_those_of_the_shipped_targets() -> None:
    assert {f.bits for f in FORMATS} >= {4, 8, 32}
    assert len(FORMATS) >= 8


@pytest.mark.parametrize("core", CORES)
def test_every_format_computes_there_what_it_computes_here(
    core: str, artifacts: Mapping[Format, Path], here: dict[Format, Logits]
) -> None:
    there = logits_on(device_at(f"qemu:{core}"), artifacts)
    fp32 = here[Format(bits=32)]
    for format_, found in there.items():
        tolerance = ROUNDED[0] if format_.quantized else EXACT[0]
        assert distance(found, here[format_]) <= tolerance, (core, str(format_))
        assert distance(found, fp32) <= FROM_FP32[format_.bits], (core, str(format_))
        # Negative controls: a step's logits for its neighbour's, another format's, and a scale that is off.
        assert distance(np.roll(found, 1, axis=0), here[format_]) > 2 * tolerance
        assert distance(found * 1.1, here[format_]) > tolerance
    widths = {format_.bits: found for format_, found in there.items()}
    assert distance(widths[4], here[Format(bits=32)]) > ROUNDED[0]


@pytest.mark.parametrize("core", CORES)
def test_the_command_tells_features_and_agreement(core: str, artifacts: Mapping[Format, Path]) -> None:
    found = agreement(artifacts[Format(bits=4, block_size=32)], device_at(f"qemu:{core}"))
    assert found.agrees
    assert FEATURES[core] <= set(found.device.features)
    assert found.device.machine == "aarch64"
    if core == "cortex-a72":
        assert "dotprod" not in found.device.features
    if core == "cortex-a76":
        assert "i8mm" not in found.device.features


@pytest.fixture(scope="session")
def with_all_in_integers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts in integer products and whole attention, whose keys and values become integers after it."""
    task = tiny_task({"entailment": "yes", "contradiction": "no"})
    return build_artifact(
        tmp_path_factory.mktemp("integers") / "artifact",
        CONFIG,
        Format(bits=4, block_size=32),
        tiny_tokenizer(),
        task,
        prompt_format=BY_ROW,
        prompt_attention="whole",
        cache_bits=8,
    )


@pytest.mark.parametrize("core", CORES)
def test_so_do_integers_in_the_cache_and_in_products(core: str, with_all_in_integers: Path) -> None:
    found = agreement(with_all_in_integers, device_at(f"qemu:{core}"))
    assert found.agrees
    assert 0 < found.relative_error <= ROUNDED[0]


def test_a_wrong_weight_is_found(artifacts: Mapping[Format, Path], tmp_path: Path) -> None:
    """A device that got other bytes: every scale of the last quarter of the file's bytes is disturbed."""
    folder = artifacts[Format(bits=8, block_size=32)]
    for name in ("model.onnx", "model.onnx.data"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    raw = bytearray((tmp_path / "model.onnx.data").read_bytes())
    for index in range(3 * len(raw) // 4, len(raw)):
        raw[index] ^= 0x10
    (tmp_path / "model.onnx.data").write_bytes(raw)
    eight = Format(bits=8, block_size=32)
    wrong = logits_on(device_at("qemu:cortex-a76"), {eight: tmp_path})[eight]
    assert not distance(wrong, logits_on(THIS_COMPUTER, {eight: folder})[eight]) <= ROUNDED[0]
