"""Quantized weights of a tiny student whose cache or activations have other bits than 32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from edgeicl.models.model_folder import model_config
from edgeicl.quantize.cache import RoundedCache, measured_scales
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.student_weights import read_weights
from edgeicl.specs.quant_plan import QuantPlan
from tests.unit.emit.tiny_opt import Tiny


def with_integer_cache(tiny: Tiny, folder: Path) -> Tiny:
    """The same weights beside an 8-bit cache, whose scales come of random tokens."""
    vocabulary = model_config(tiny.student)["vocab_size"]
    sequences = np.random.default_rng(7).integers(0, vocabulary, (6, 24)).tolist()
    scales = measured_scales(CalibratedDecoder(read_weights(tiny.student), sequences))
    tensors = load_file(tiny.quantized / "weights.safetensors") | RoundedCache(8, scales).tensors()
    return _written(tiny, folder, tensors, cache_bits=8)


def with_halves(tiny: Tiny, folder: Path) -> Tiny:
    """The same weights with everything in fp16 that would be in fp32."""
    tensors = {
        name: values.astype(np.float16) if values.dtype == np.float32 else values
        for name, values in load_file(tiny.quantized / "weights.safetensors").items()
    }
    return _written(tiny, folder, tensors, cache_bits=16, activation_bits=16)


def _written(tiny: Tiny, folder: Path, tensors: dict[str, np.ndarray], **bits: int) -> Tiny:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "weights.safetensors")
    plan = QuantPlan.model_validate_json((tiny.quantized / "plan.json").read_text())
    (folder / "plan.json").write_text(plan.model_copy(update=bits).model_dump_json())
    return Tiny(tiny.student, folder)
