"""A random student of OPT's architecture with a byte-level tokenizer, and its weights as they are quantized."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, OPTConfig, OPTForCausalLM

from edgeicl.models.architectures.table import anatomy_of
from edgeicl.numerics.affine import round_to_nearest
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.offered_formats import offered_formats
from edgeicl.quantize.student_weights import read_weights
from edgeicl.specs.quant_plan import Format, GroupPlan, PromptAttention, QuantPlan

BOS, PAD = 2, 1
TEXTS = ["the cat sat near the dog question: the cat sat? answer: Yes", "no dog was by the cat No\n"] * 4


@dataclass(frozen=True)
class Tiny:
    """Folders of a student and of its quantized weights."""

    student: Path
    quantized: Path


def tiny_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", BOS)]
    )
    return tokenizer


def make_student(folder: Path) -> None:
    """Two layers of width 64; weights large enough that every one of them shows in the logits."""
    tokenizer = tiny_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    model = OPTForCausalLM(
        OPTConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=64,
            num_hidden_layers=2,
            ffn_dim=128,
            num_attention_heads=4,
            max_position_embeddings=64,
            word_embed_proj_dim=64,
            init_std=0.3,
            bos_token_id=BOS,
            eos_token_id=BOS,
            pad_token_id=PAD,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)


def write_quantized(
    student: Path,
    folder: Path,
    format_: Format,
    prompt_format: Format | None = None,
    *,
    one_step: bool = False,
    prompt_attention: PromptAttention = "tiled",
) -> None:
    """What the quantize stage writes for a plan of one format, and of 8 bits where it doesn't fit.

    `one_step`: for all tokens' inputs of integer products, where random tokens find one.
    """
    anatomy = anatomy_of(json.loads((student / "config.json").read_text()))
    model = AutoModelForCausalLM.from_pretrained(student)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    tensors = {name: state[name] for name in anatomy.others}
    formats = {
        group.name: format_ if format_ in offered_formats(group, [format_]) else Format(bits=8, block_size=16)
        for group in anatomy.groups
    }
    steps: dict[str, float] = {}
    if one_step:
        ids = np.random.default_rng(0).integers(0, anatomy.vocabulary, (32, anatomy.positions))
        steps = CalibratedDecoder(read_weights(student), ids.tolist()).input_steps
    for group in anatomy.groups:
        stored = formats[group.name]
        parts = [state[name] for name in group.weights]
        matrix = np.ascontiguousarray(np.concatenate([part.T if group.transposed else part for part in parts]))
        if stored.quantized:
            quantized = round_to_nearest(matrix, stored)
            tensors[f"{group.name}.codes"] = quantized.codes
            tensors[f"{group.name}.scales"] = quantized.scales
            if quantized.zero_points is not None:
                tensors[f"{group.name}.zero_points"] = quantized.zero_points
        else:
            tensors[f"{group.name}.weight"] = matrix.astype(f"float{stored.bits}")
        if prompt_format is not None and group.layer is not None:
            quantized = round_to_nearest(matrix, prompt_format)
            tensors[f"prompt.{group.name}.codes"] = quantized.codes
            tensors[f"prompt.{group.name}.scales"] = quantized.scales
        if group.name in steps:
            tensors[f"{group.name}.input_step"] = np.array([steps[group.name]], np.float32)
        if group.biases:
            tensors[f"{group.name}.bias"] = np.concatenate([state[name] for name in group.biases])
    save_file(tensors, str(folder / "weights.safetensors"))
    plan = QuantPlan(
        model_digest="0" * 64,
        importance="none",
        groups=tuple(GroupPlan(group=group.name, format=formats[group.name]) for group in anatomy.groups),
        prompt_format=prompt_format,
        prompt_attention=prompt_attention,
        predicted_weight_bytes=0,
        predicted_artifact_bytes=0,
        predicted_resident_bytes=0,
    )
    (folder / "plan.json").write_text(plan.model_dump_json())
