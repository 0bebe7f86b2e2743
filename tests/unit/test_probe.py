"""What `edgeicl probe` writes: a target whose costs were measured, from graphs of parts of a decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgeicl.bench.device_facts import processor
from edgeicl.bench.devices.address import device_at
from edgeicl.bench.devices.local import THIS_COMPUTER
from edgeicl.bench.graph_times import times_ms
from edgeicl.emit.probe_graphs import Shape, write_activations, write_attention, write_products
from edgeicl.errors import BenchError, SpecError
from edgeicl.probe import _Runner, probe
from edgeicl.probed_computer import check_probed
from edgeicl.specs.catalog import load_target
from edgeicl.specs.loading import dump_yaml, parse_spec
from edgeicl.specs.quant_plan import BY_ROW, Format
from edgeicl.specs.target import VNNI, Target
from tests.unit.quantize.test_quantize_stage import _target
from tests.unit.test_cli import exit_code

SMALL = Shape(layers=1, hidden=256, inner=512, heads=4)
LARGER = Shape(layers=2, hidden=512, inner=1024, heads=8)


def _ran(folder: Path, **inputs: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, inputs)
    return np.asarray(found)


def _names(folder: Path) -> set[str]:
    """What the nodes of a graph read."""
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    return {name for node in graph.node for name in node.input}


def test_every_product_is_computed(tmp_path: Path) -> None:
    """fp32 weights are 0.001: from ones, 256 inputs give 0.256 and 512 give 0.512."""
    write_products(tmp_path, SMALL, Format(bits=32))
    ones = {"stream": np.ones((1, 3, 256), np.float32), "inner": np.ones((1, 3, 512), np.float32)}
    np.testing.assert_allclose(_ran(tmp_path, **ones), np.full((1, 3, 1), 3 * 0.256 + 0.512), rtol=1e-5)
    assert SMALL.weights == (3 * 256 + 256 + 2 * 512) * 256
    assert SMALL.numbers == 4 * 256 + 2 * 256 + 2 * (256 + 512)


def test_the_other_parts_run(tmp_path: Path) -> None:
    write_activations(tmp_path / "activations", SMALL)
    for attention in ("tiled", "whole"):
        write_attention(tmp_path / attention, SMALL, attention)
    random = np.random.default_rng(0)
    stream, inner, qkv = (random.standard_normal((1, 5, n), dtype=np.float32) for n in (256, 512, 768))
    assert np.isfinite(_ran(tmp_path / "activations", stream=stream, inner=inner)).all()
    attended = _ran(tmp_path / "tiled", qkv=qkv)
    np.testing.assert_allclose(_ran(tmp_path / "whole", qkv=qkv), attended, rtol=1e-4, atol=1e-6)
    with_sink = {way: "no_sink" in _names(tmp_path / way) for way in ("tiled", "whole")}
    assert with_sink == {"tiled": False, "whole": True}
    # integers of a twentieth are off by at most a fortieth; one token alone is read beside the cache by both
    for name, attention in (("integers", "tiled"), ("both", "whole")):
        write_attention(tmp_path / name, SMALL, attention, 8, room=5)
        write_attention(tmp_path / f"{name}, growing", SMALL, attention, 8)
    rounded = _ran(tmp_path / "integers", qkv=qkv)
    assert 1e-3 < np.abs(rounded - attended).max() < 0.05
    np.testing.assert_allclose(_ran(tmp_path / "both", qkv=qkv), attended, rtol=1e-4, atol=1e-6)
    for name in ("integers", "both"):
        np.testing.assert_array_equal(
            _ran(tmp_path / f"{name}, growing", qkv=qkv), _ran(tmp_path / name, qkv=qkv)
        )
    one = {"qkv": qkv[:, :1]}
    np.testing.assert_array_equal(_ran(tmp_path / "both", **one), _ran(tmp_path / "integers", **one))
    assert attended.shape == (1, 5, 256)
    np.testing.assert_allclose(attended[0, 0], qkv[0, 0, 512:], rtol=1e-5)  # the first token sees itself


def test_integer_products_are_those_of_opt(tmp_path: Path) -> None:
    write_products(tmp_path, SMALL, BY_ROW)
    kinds = [node.op_type for node in onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.node]
    assert {kind: kinds.count(kind) for kind in ("MatMulIntegerToFloat", "Relu", "Abs")} == {
        "MatMulIntegerToFloat": 4,
        "Relu": 0,
        "Abs": 0,
    }
    assert {"input_zero", "rectified_zero"} <= _names(tmp_path)


def test_times_in_turn() -> None:
    called: list[str] = []
    times = times_ms([lambda: called.append("a"), lambda: called.append("b")], seconds=0.0)
    assert called == ["a", "b"] * 4  # once before any counts
    assert [len(each) for each in times] == [3, 3]
    assert all(0 < one < 1000 for each in times for one in each)


@pytest.mark.alone
def test_a_target_is_measured() -> None:
    given = load_target("tiny-cpu").model_copy(update={"formats": (Format(bits=4, block_size=32), BY_ROW)})
    found = probe(given, threads=1, shape=LARGER, seconds=0.05)
    calibration = found.calibration
    assert calibration is not None
    assert [cost.format for cost in calibration.costs] == list(given.formats)
    # more than a tenth of an operation a core can do in a picosecond, less than a microsecond a weight
    assert all(0.01 < cost.prompt_ps_per_weight < 1e6 for cost in calibration.costs)
    assert calibration.bandwidth_bytes_per_second > 1e8
    assert calibration.fixed_decode_ms > 0
    assert calibration.fixed_layers == LARGER.layers
    assert calibration.whole_attention_ps_per_product is not None
    assert calibration.integer_attention_ps_per_product is not None
    assert calibration.knows_integer_caches
    assert "1 threads" in calibration.source
    assert found.description == f"{processor()}, 1 threads, measured by edgeicl probe, from tiny-cpu"
    if {*VNNI} & {*found.instruction_features}:
        assert found.prompt_format == BY_ROW
    again = parse_spec(dump_yaml(found), Target, source="t.yaml", base_folder=Path())
    assert again == found


def test_a_runtime_that_takes_no_integers_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: _Runner, graphs: object) -> None:
        raise BenchError("[ONNXRuntimeError] : 1 : FAIL : kv_cache_bit_width")

    monkeypatch.setattr("edgeicl.probe._Runner._run", refuse)
    assert _Runner(THIS_COMPUTER.open(), 1, 0.0, SMALL).integer_cache() == {}


def test_times_that_make_no_sense_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy computer many weights may seem to take less than few."""
    monkeypatch.setattr(
        "edgeicl.probe._Runner._run", lambda self, graphs: {"ms": [1.0, 9.0, 2.0, 3.0], "median_ms": [1.0] * 4}
    )
    with pytest.raises(BenchError, match=r"int8/row: .* took 1 ms with one token") as caught:
        _Runner(THIS_COMPUTER.open(), 1, 0.0, SMALL).cost(BY_ROW)
    assert "probe again" in str(caught.value)


def test_mistakes_of_the_command(tmp_path: Path) -> None:
    out = str(tmp_path / "t.yaml")
    assert exit_code("probe", "--on", "phone", "--out", out) == 2
    (tmp_path / "t.yaml").touch()
    assert exit_code("probe", "--out", out) == 2


def test_an_emulated_core_has_no_times_to_probe() -> None:
    with pytest.raises(BenchError, match="times mean nothing there"):
        probe(load_target("raspberry-pi-5"), device=device_at("qemu:cortex-a76"))


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(SpecError, match="1000 threads on"):
        probe(_target([{"bits": 32}], artifact_bytes=1), threads=1000)


@pytest.mark.parametrize(
    ("machine", "name", "told"),
    [
        (
            "x86_64",
            "raspberry-pi-5",
            "dotprod, fp16, which ARM processors have, and the device is x86_64; expected",
        ),
        (
            "aarch64",
            "host-cpu",
            "avx2, which x86 processors have, and the device is aarch64; expected those of ARM",
        ),
        ("x86_64", "cuda", "cuda, and a probe measures CPUs; expected cpu"),
        ("aarch64", "raspberry-pi-5", None),
        ("x86_64", "host-cpu", None),
        ("riscv64", "raspberry-pi-5", None),  # nothing is known of it
    ],
)
def test_another_device_is_not_measured_here(machine: str, name: str, told: str | None) -> None:
    if told is None:
        check_probed(load_target(name), machine)
        return
    with pytest.raises(SpecError, match=told) as caught:
        check_probed(load_target(name), machine)
    assert "--from host-cpu" in caught.value.next_step
    assert caught.value.exit_code == 2


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("probe", "--out", str(tmp_path / "no" / "t.yaml")) == 2
    assert "no such folder" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "no").exists()
