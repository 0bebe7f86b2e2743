"""What processes hold of artifacts of several shapes and formats, beside what the planner expects.

`python -m tests.resident_memory` prints the table of docs/results/resident-memory.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeicl.bench.workload import Workload
from edgeicl.bench.workload_run import run_workload
from edgeicl.models.anatomy import EMBEDDING
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.numerics.size import (
    attention_score_bytes,
    group_bytes,
    held_bytes,
    kv_cache_bytes,
    rounded_cache_bytes,
)
from edgeicl.specs.quant_plan import CacheBits, Format, PromptAttention
from tests.unit.bench.conftest import TINY, build_artifact, tiny_task, tiny_tokenizer

FORMATS = (
    Format(bits=4, block_size=32),
    Format(bits=4, block_size=128),
    Format(bits=8, block_size=32),
    Format(bits=16),
    Format(bits=32),
)


@dataclass(frozen=True)
class Memory:
    """Bytes above those of the process before it loads a model; `session` is what the planner leaves open."""

    stored: int
    held: int
    rest: int
    peak: int

    @property
    def session(self) -> int:
        return self.peak - self.held - self.rest


def shape(*, hidden: int, layers: int, vocabulary: int, positions: int = 256) -> dict[str, Any]:
    """An OPT configuration with heads of 64."""
    return TINY | {
        "hidden_size": hidden,
        "word_embed_proj_dim": hidden,
        "ffn_dim": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
    }


def gated_shape(model_type: str, *, head_size: int = 64, tied: bool = True) -> dict[str, Any]:
    """A configuration of the Llama family: 4 layers of width 768, 12 heads that share 4 of keys and values."""
    return {
        "model_type": model_type,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 4,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "head_dim": head_size,
        "vocab_size": 2000,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": tied,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


GPT2_SHAPE = {"model_type": "gpt2", "n_layer": 4, "n_positions": 2048, "vocab_size": 2000, "eos_token_id": 0}


def memory(
    config: Mapping[str, Any],
    format_: Format,
    *,
    prompt_tokens: int,
    folder: Path,
    labels_alone: bool = False,
    attention: PromptAttention = "tiled",
    cache_bits: CacheBits = 32,
) -> Memory:
    """Builds an artifact of random weights in `folder` and runs it once on one thread.

    `labels_alone`: with the head of `emit.head: verbalizers`, and nothing decoded.
    """
    task = tiny_task({"entailment": "yes", "contradiction": "no"})
    artifact = build_artifact(
        folder / "artifact",
        config,
        format_,
        tiny_tokenizer(),
        task,
        labels_alone=labels_alone,
        prompt_attention=attention,
        cache_bits=cache_bits,
    )
    workload = Workload(1, prompt_tokens, 0 if labels_alone else 4, repetitions=1, warmup_repetitions=0)
    run = run_workload(
        graph=artifact / "model.onnx",
        engine="fused",
        workload=workload,
        vocabulary=config["vocab_size"],
        bytes_per_token=None,
    )
    anatomy = anatomy_of(config)
    groups = anatomy.groups
    cache = kv_cache_bytes(
        anatomy.layers, anatomy.kv_width, prompt_tokens + workload.decode_tokens, bits=cache_bits
    )
    tables = anatomy.fixed_tensor_bytes + anatomy.computed_bytes
    return Memory(
        stored=sum(group_bytes(*g.shape, format_) for g in groups),
        held=sum(
            held_bytes(
                *g.shape,
                format_,
                looked_up=g.name == EMBEDDING,
                multiplied=anatomy.multiplies(g) and not (labels_alone and g.name == EMBEDDING),
            )
            for g in groups
        ),
        rest=tables
        + labels_alone * 4 * len(task.verbalizers) * anatomy.embedding_width
        + cache
        + (attention == "whole") * attention_score_bytes(anatomy.heads, prompt_tokens)
        + ((attention, cache_bits) == ("whole", 8)) * rounded_cache_bytes(anatomy.kv_width, prompt_tokens)
        + anatomy.activation_bytes(prompt_tokens),
        peak=run["peak_rss_bytes"] - run["baseline_rss_bytes"],
    )


def main() -> None:
    """Prints the table, in megabytes of 10^6."""
    write = sys.stdout.write
    write("| shape | prompt, attention, cache | head | format | stored | held | cache, activations, others ")
    write("| peak | left over |\n")
    write("|---|---|---|---|---|---|---|---|---|\n")

    def opt(hidden: int, layers: int, vocabulary: int) -> tuple[str, dict[str, Any]]:
        config = shape(hidden=hidden, layers=layers, vocabulary=vocabulary, positions=2048)
        return f"{layers} x {hidden}, {vocabulary} words", config

    tiled: PromptAttention = "tiled"
    both: tuple[PromptAttention, ...] = (tiled, "whole")
    rows = [(*opt(*sizes), 64, tiled, format_, False, 32) for sizes in _SHAPES for format_ in FORMATS]
    kinds: tuple[CacheBits, ...] = (32, 8)
    rows += [
        (*opt(*_SHAPES[1]), prompt, way, FORMATS[1], False, bits)
        for prompt in (256, 1024, 2000)
        for way in both
        for bits in kinds
    ]
    rows += [(*each, prompt, tiled, FORMATS[1], False, 32) for each in _OTHERS.items() for prompt in (64, 1024)]
    rows += [(*opt(*_SHAPES[0]), 64, tiled, format_, True, 32) for format_ in FORMATS]
    for name, config, prompt, attention, format_, labels_alone, cache_bits in rows:
        with tempfile.TemporaryDirectory() as folder:
            found = memory(
                config,
                format_,
                prompt_tokens=prompt,
                folder=Path(folder),
                labels_alone=labels_alone,
                attention=attention,
                cache_bits=cache_bits,
            )
        figures = (found.stored, found.held, found.rest, found.peak, found.session)
        head = "labels" if labels_alone else "full"
        cells = " | ".join(f"{figure / 1e6:.1f}" for figure in figures)
        way = f"{', whole' * (attention == 'whole')}{', integers' * (cache_bits == 8)}"
        write(f"| {name} | {prompt}{way} | {head} | {format_} | {cells} |\n")


_SHAPES = ((768, 2, 50272), (768, 4, 2000), (768, 12, 2000), (512, 4, 24000))
_OTHERS = {
    "GPT-2, 4 x 768": GPT2_SHAPE,
    "Llama, 4 x 768": gated_shape("llama"),
    "Llama, 4 x 768, untied": gated_shape("llama", tied=False),
    "Qwen3, 4 x 768, heads of 128": gated_shape("qwen3", head_size=128),
}


if __name__ == "__main__":
    main()
