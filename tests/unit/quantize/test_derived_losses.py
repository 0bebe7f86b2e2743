"""Losses that follow from others: which are measured, what outputs change by, how near that is to measuring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import OPTForCausalLM

from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.quantize import derived_losses, stage_inputs
from edgeicl.quantize.allocation import LossTable
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.derived_losses import derived_table, measured_format, output_changes
from edgeicl.quantize.offered_formats import offered_formats
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.solver import SolverName
from edgeicl.quantize.stored_weights import stored_values
from edgeicl.quantize.student_weights import StudentWeights, read_weights
from edgeicl.specs.importance import FormatLosses, ImportanceTable
from edgeicl.specs.quant_plan import BY_ROW, Format
from edgeicl.specs.target import Target
from tests.unit.quantize.test_forecast import foreseen
from tests.unit.quantize.test_quantize_stage import LARGEST_BYTES, _recipe, _run, _target
from tests.unit.quantize.tiny_student import SEQUENCES
from tests.unit.tiny_models import make_model


def f(bits: Any, block: Any = 128, *, symmetric: bool = True) -> Format:
    return Format(bits=bits, block_size=block, symmetric=symmetric)


def target_of(*formats: Format) -> Target:
    return _target([format_.model_dump() for format_ in formats], artifact_bytes=LARGEST_BYTES)


def losses_of(student: Path, store: Path, formats: list[Format], **settings: str) -> LossTable:
    output = _run(student, store, target_of(*formats), **settings)
    return ImportanceTable.model_validate_json((output.path / "importance.json").read_bytes()).losses()


FP16, FP32 = Format(bits=16), Format(bits=32)
EVERY = [f(2, 64), f(2, symmetric=False), f(4, 32), f(4), f(4, 256), f(8), BY_ROW, FP16, FP32]


@pytest.mark.parametrize(
    ("format_", "offered", "expected"),
    [
        (f(2, symmetric=False), EVERY, f(2, 64)),  # symmetric before the usual block
        (f(4, 32), EVERY, f(4)),
        (f(8), EVERY, f(4)),
        (BY_ROW, EVERY, f(4)),
        (FP16, EVERY, f(4)),
        (FP32, EVERY, FP32),
        (f(2), [f(2), f(8)], f(2)),
        (f(8, 32), [f(2), f(8, 32), BY_ROW], f(8, 32)),
        (BY_ROW, [BY_ROW, f(8, 16)], f(8, 16)),
        (BY_ROW, [f(2), BY_ROW], BY_ROW),
        (FP16, [f(2), FP16], FP16),
    ],
)
def test_which_format_is_measured(format_: Format, offered: list[Format], expected: Format) -> None:
    for order in (offered, offered[::-1]):
        assert measured_format(format_, order) == expected


def test_changes_are_those_of_the_model(weights: StudentWeights, reference: OPTForCausalLM) -> None:
    """From what transformers' modules read and give, each sequence by itself."""
    decoder = CalibratedDecoder(weights, SEQUENCES)
    offered = {group.name: [f(4, 32), f(8, 32)] for group in weights.groups}
    found = output_changes(weights, decoder, offered)
    read: dict[str, list[NDArray[np.float64]]] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1])
            read.setdefault(name, []).append(rows.double().numpy())

        return hook

    modules = {
        "layers.0.attention.qkv": "model.decoder.layers.0.self_attn.q_proj",
        "layers.0.attention.output": "model.decoder.layers.0.self_attn.out_proj",
        "layers.1.mlp.down": "model.decoder.layers.1.fc2",
        "embedding": "lm_head",
    }
    hooks = [
        reference.get_submodule(path).register_forward_pre_hook(keep(name)) for name, path in modules.items()
    ]
    with torch.inference_mode():
        for sequence in SEQUENCES:
            reference(torch.tensor([sequence]))
    for hook in hooks:
        hook.remove()
    for name in modules:
        matrix = weights.matrices[name]
        for format_ in offered[name]:
            error = (stored_values(matrix, format_) - matrix).astype(np.float64)
            by_hand = np.square(np.concatenate(read[name]) @ error.T).mean()
            assert found[format_][name] == pytest.approx(by_hand, rel=1e-4)


def test_a_table_that_is_no_head_changes_what_is_looked_up(weights: StudentWeights) -> None:
    """With a head of labels alone: the mean over the tokens that occur."""
    decoder = CalibratedDecoder(weights, SEQUENCES, head_tokens=[3, 4])
    found = output_changes(weights, decoder, {group.name: [f(4, 32)] for group in weights.groups})
    table = weights.matrices["embedding"]
    rows = sorted({token for sequence in SEQUENCES for token in sequence})
    error = stored_values(table, f(4, 32)) - table
    assert found[f(4, 32)]["embedding"] == pytest.approx(np.square(error[rows]).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("variant", "solver"),
    [
        ("opt", "rtn"),
        ("opt", "gptq"),
        ("opt-350m", "rtn"),
        ("gpt2-untied", "rtn"),
        ("gpt2-untied", "gptq"),
        ("llama", "rtn"),
    ],
)
def test_near_what_is_measured_whatever_the_formats(variant: str, solver: SolverName, tmp_path: Path) -> None:
    """Tied and untied heads, projections, integer products and half precision.

    In the median within a third, and each within a factor of 4, of 96 tokens; formats lie up to 10^6 apart.
    """
    weights = read_weights(make_model(tmp_path, variant))
    decoder = CalibratedDecoder(weights, np.random.default_rng(0).integers(4, 250, (8, 12)).tolist())
    offered = {g.name: offered_formats(g, [f(4, 32), f(8, 32), BY_ROW, FP16, FP32]) for g in weights.groups}
    groups = {
        format_: [g for g in weights.groups if format_ in offered[g.name]]
        for format_ in [f(4, 32), f(8, 32), BY_ROW, FP16]
    }
    sensitivity = Sensitivity(decoder)
    measured = {
        format_: sensitivity.losses(of_it, weights, format_, solver=solver) for format_, of_it in groups.items()
    }
    entries = tuple(FormatLosses(format=format_, losses=measured[format_]) for format_ in [f(4, 32)])
    found = derived_table(
        table().model_copy(update={"formats": entries}),
        {format_: [group.name for group in of_it] for format_, of_it in groups.items()},
        output_changes(weights, decoder, offered, solver=solver),
        measure=lambda name, format_: pytest.fail(f"{name} in {format_} changes nothing"),
    ).losses()
    for format_, losses in measured.items():
        ratios = [found[name][format_] / loss for name, loss in losses.items() if loss > 1e-12]
        assert len(ratios) > 6 or format_ == FP16
        assert all(1 / 4 < ratio < 4 for ratio in ratios), (format_, ratios)
        assert 0.75 < np.median(ratios) < 1.33


def test_a_sample_tells_what_all_do(weights: StudentWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = CalibratedDecoder(weights, SEQUENCES)
    offered = {group.name: [f(4, 32), f(8, 32)] for group in weights.groups}
    whole = output_changes(weights, decoder, offered)
    monkeypatch.setattr(derived_losses, "_MOST_TOKENS", 11)
    monkeypatch.setattr(derived_losses, "_MOST_OUTPUTS", 16)
    sample = output_changes(weights, decoder, offered)
    for name in offered:
        full, part = (found[f(8, 32)][name] / found[f(4, 32)][name] for found in (whole, sample))
        assert part == pytest.approx(full, rel=0.5)
        assert part != full


def table(**losses: float) -> ImportanceTable:
    return ImportanceTable(
        method="sensitivity", unit="nats", calibration_sequences=1, calibration_tokens=1,
        formats=(FormatLosses(format=f(4), losses=losses),),
    )  # fmt: skip


def test_losses_on_paper() -> None:
    groups = {f(4): ["a", "b", "c"], f(8): ["a", "b", "c"], FP32: ["a"]}
    changes = {f(4): {"a": 8.0, "b": 2.0, "c": 0.0}, f(8): {"a": 2.0, "b": 1.0, "c": 0.5}}
    measured = table(a=0.4, b=-1e-18, c=0.0)
    fp32 = FormatLosses(format=FP32, losses={"a": 0.0})
    measured = measured.model_copy(update={"formats": (*measured.formats, fp32)})
    asked = []

    def measure(name: str, format_: Format) -> float:
        asked.append((name, format_))
        return 0.7

    found = derived_table(measured, groups, changes, measure=measure)
    assert found.losses() == {
        "a": {f(4): 0.4, f(8): pytest.approx(0.1), FP32: 0.0},
        "b": {f(4): -1e-18, f(8): 0.0},
        "c": {f(4): 0.0, f(8): 0.7},
    }
    assert asked == [("c", f(8))]
    assert [entry.derived_from for entry in found.formats] == [{}, dict.fromkeys("abc", f(4)), {}]
    assert found.unit == "nats; measured in int4/block128, other formats by the change of the outputs"


def test_near_what_is_measured(student: Path, tmp_path: Path) -> None:
    """Within a factor of 2 on a student of 22 tokens, where formats lie a factor of 200 apart."""
    formats = [f(4, 16), f(4, 32), f(8, 16), f(8, 32)]
    measured = losses_of(student, tmp_path, formats)
    derived = losses_of(student, tmp_path, formats, measured_formats="one_per_width")
    ratios = {f_: [derived[name][f_] / measured[name][f_] for name in measured] for f_ in formats}
    assert ratios[f(4, 32)] == [1.0] * 9
    assert all(0.5 < ratio < 2.0 for found in ratios.values() for ratio in found)
    unscaled = [derived[name][f(4, 32)] / measured[name][f(8, 32)] for name in measured]
    assert min(unscaled) > 50  # negative control
    # The format that was measured comes from the store: both ways share it.
    assert len(list((tmp_path / "importance").glob("*/importance.json"))) == 4


def test_a_forecast_counts_what_will_be_measured(student: Path, tmp_path: Path) -> None:
    target = target_of(f(2, 16), f(4, 16), f(4, 32), f(8, 32))
    found, _ = foreseen(student, tmp_path, target, measured_formats="one_per_width")
    assert (found.groups, found.to_measure, found.measured) == (9, 18, 0)


def test_a_student_that_is_run_whole_is_measured_in_all(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its groups read isn't seen: told as a deviation."""
    anatomy = replace(anatomy_of(model_config(student)), graph_bytes=1_000)
    monkeypatch.setattr(stage_inputs, "anatomy_of", lambda _: anatomy)
    for asked, told in (("one_per_width", [("quantize.measured_formats", "all")]), ("all", [])):
        recipe, target = _recipe(measured_formats=asked), target_of(f(4, 32), FP32)
        _, deviations = stage_inputs.sized(recipe, target, student=student, prefix_tokens=(), prefix_ids=False)
        assert [(deviation.what, deviation.got) for deviation in deviations] == told
        found = stage_inputs.calibrated(
            recipe, target, student=student, student_digest="x", base_folder=student, prefix=None
        )
        assert found.measured_formats == "all"
