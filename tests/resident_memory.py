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

from edgeicl.bench.local import run_local
from edgeicl.bench.workload import Workload
from edgeicl.models.anatomy import EMBEDDING
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.numerics.size import group_bytes, held_bytes, kv_cache_bytes, prefill_bytes
from edgeicl.specs.quant_plan import Format
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


def memory(
    config: Mapping[str, Any],
    format_: Format,
    *,
    prompt_tokens: int,
    folder: Path,
    labels_alone: bool = False,
) -> Memory:
    """Builds an artifact of random weights in `folder` and runs it once on one thread.

    `labels_alone`: with the head of `emit.head: verbalizers`, and nothing decoded.
    """
    task = tiny_task({"entailment": "yes", "contradiction": "no"})
    artifact = build_artifact(
        folder / "artifact", config, format_, tiny_tokenizer(), task, labels_alone=labels_alone
    )
    workload = Workload(1, prompt_tokens, 0 if labels_alone else 4, repetitions=1, warmup_repetitions=0)
    run = run_local(
        graph=artifact / "model.onnx",
        engine="fused",
        workload=workload,
        vocabulary=config["vocab_size"],
        bytes_per_token=None,
    )
    anatomy = anatomy_of(config)
    groups = anatomy.groups
    cache = kv_cache_bytes(anatomy.layers, anatomy.kv_width, prompt_tokens + workload.decode_tokens)
    return Memory(
        stored=sum(group_bytes(*g.shape, format_) for g in groups),
        held=sum(
            held_bytes(
                *g.shape,
                format_,
                looked_up=g.name == EMBEDDING,
                multiplied=not (labels_alone and g.name == EMBEDDING),
            )
            for g in groups
        ),
        rest=anatomy.fixed_tensor_bytes
        + labels_alone * 4 * len(task.verbalizers) * anatomy.embedding_width
        + cache
        + prefill_bytes(anatomy.hidden, anatomy.widest, prompt_tokens),
        peak=run["peak_rss_bytes"] - run["baseline_rss_bytes"],
    )


def main() -> None:
    """Prints the table, in megabytes of 10^6."""
    write = sys.stdout.write
    write(
        "| shape | prompt | head | format | stored | held | cache, activations, others | peak | left over |\n"
    )
    write("|---|---|---|---|---|---|---|---|---|\n")
    cases = [(*shape_, 64, f, False) for shape_ in _SHAPES for f in FORMATS]
    cases += [(768, 4, 2000, prompt, FORMATS[1], False) for prompt in (256, 1024, 2000)]
    cases += [(*_SHAPES[0], 64, f, True) for f in FORMATS]
    for hidden, layers, vocabulary, prompt, format_, labels_alone in cases:
        config = shape(hidden=hidden, layers=layers, vocabulary=vocabulary, positions=2048)
        with tempfile.TemporaryDirectory() as folder:
            found = memory(
                config, format_, prompt_tokens=prompt, folder=Path(folder), labels_alone=labels_alone
            )
        figures = (found.stored, found.held, found.rest, found.peak, found.session)
        head = "labels" if labels_alone else "full"
        cells = " | ".join(f"{figure / 1e6:.1f}" for figure in figures)
        write(f"| {layers} x {hidden}, {vocabulary} words | {prompt} | {head} | {format_} | {cells} |\n")


_SHAPES = ((768, 2, 50272), (768, 4, 2000), (768, 12, 2000), (512, 4, 24000))


if __name__ == "__main__":
    main()
