"""Small real artifacts: random weights, quantized and lowered by edgeicl's own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from edgeicl.bench.protocol import token_trace
from edgeicl.bench.rivals.checkpoint import write_random_checkpoint
from edgeicl.emit.deployment_files import write_deployment_files
from edgeicl.emit.lowering import file_entry, write_model
from edgeicl.emit.prefix import prefix_use, write_prefix_file
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.models.anatomy import EMBEDDING, LABEL_HEAD, input_step_name, prompt_tensors
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.numerics.affine import round_to_nearest
from edgeicl.specs.manifest import PREFIX_FILE, Manifest, TaskFile
from edgeicl.specs.quant_plan import BY_ROW, CacheBits, Format, GroupPlan, PromptAttention, QuantPlan
from edgeicl.store import folder_hashes
from edgeicl.tasks.verbalizer import label_columns

TINY: dict[str, Any] = {
    "model_type": "opt", "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "vocab_size": 40, "max_position_embeddings": 64, "do_layer_norm_before": True, "word_embed_proj_dim": 32,
    "tie_word_embeddings": True, "activation_function": "relu",
}  # fmt: skip
WORDS = ["</s>", "<pad>", "<unk>", "yes", "no", "not", "at", "all", *(f"w{i}" for i in range(32))]


def _measured(
    checkpoint: Path, vocabulary: int, *, integer_products: bool, cache_bits: CacheBits
) -> dict[str, NDArray[np.float32]]:
    """What the quantize stage measures: steps of inputs, as a trained student has them; scales of a cache."""
    from edgeicl.quantize.cache import RoundedCache, measured_scales  # torch: only where it is needed
    from edgeicl.quantize.decoder import CalibratedDecoder
    from edgeicl.quantize.student_weights import read_weights

    tokens = token_trace(min(64, vocabulary), vocabulary).tolist()
    decoder = CalibratedDecoder(read_weights(checkpoint), [tokens])
    scales = RoundedCache(8, measured_scales(decoder)).tensors() if cache_bits == 8 else {}
    steps = decoder.input_steps if integer_products else {}
    # random weights are alike everywhere; of trained ones behind a ReLU, not behind other activation functions
    alike = [
        g.name for g in decoder.groups if g.name in steps and (g.rectified or not g.name.endswith(".down"))
    ]
    return scales | {input_step_name(group): np.array([steps[group]], np.float32) for group in alike}


def build_artifact(
    folder: Path,
    config: Mapping[str, Any],
    format_: Format,
    tokenizer: Tokenizer,
    task: TaskFile,
    *,
    scale: float = 1.0,
    sets: Sequence[NDArray[Any]] = (),
    labels_alone: bool = False,
    checkpoint: Path | None = None,
    context_tokens: int = 64,
    table: Format | None = None,
    prompt_format: Format | None = None,
    prompt_attention: PromptAttention = "tiled",
    cache_bits: CacheBits = 32,
) -> Path:
    """An artifact folder as the pipeline leaves it, without what people read.

    `labels_alone`: with the head of `emit.head: verbalizers`. Weights are random without a `checkpoint`.
    `table`: format of the embedding, if not that of all; `prompt_format`: of a second copy for prompts.
    """
    work = folder.with_name(f"{folder.name}.work")
    folder.mkdir(parents=True)
    checkpoint = checkpoint or write_random_checkpoint(work / "checkpoint", config)
    work.mkdir(exist_ok=True)
    weights = load_file(checkpoint / "model.safetensors")
    stored: dict[str, Any] = {name: weights[name] for name in anatomy_of(config).others}
    groups = anatomy_of(config).groups
    formats = {group.name: table or format_ if group.name == EMBEDDING else format_ for group in groups}
    integers = BY_ROW in (format_, prompt_format)
    if integers or cache_bits == 8:
        assert scale == 1.0, "these are measured on the checkpoint as it is"
        vocabulary = int(config["vocab_size"])
        stored |= _measured(checkpoint, vocabulary, integer_products=integers, cache_bits=cache_bits)
    for group in groups:
        parts = [weights[name].T if group.transposed else weights[name] for name in group.weights]
        matrix = np.ascontiguousarray(np.concatenate(parts)) * np.float32(scale)
        own = formats[group.name]
        if prompt_format is not None and group.layer is not None:
            copy = round_to_nearest(matrix, prompt_format)
            named = prompt_tensors(group.name)
            stored |= {f"{named}.codes": copy.codes, f"{named}.scales": copy.scales}
        if own.quantized:
            rounded = round_to_nearest(matrix, own)
            stored |= {f"{group.name}.codes": rounded.codes, f"{group.name}.scales": rounded.scales}
        else:
            stored[f"{group.name}.weight"] = matrix
        if group.biases:
            stored[f"{group.name}.bias"] = np.concatenate([weights[name] for name in group.biases])
    if labels_alone:
        tokens = label_columns(task.verbalizer_tokens)
        task = task.model_copy(update={"logit_tokens": tokens})
        (table,) = groups[-1].weights
        stored[LABEL_HEAD] = weights[table][list(tokens)] * np.float32(scale)
    save_file(stored, work / "weights.safetensors")
    plan = QuantPlan(
        model_digest="0",
        importance="none",
        groups=tuple(GroupPlan(group=group.name, format=formats[group.name]) for group in groups),
        prompt_format=prompt_format,
        prompt_attention=prompt_attention,
        cache_bits=cache_bits,
        predicted_weight_bytes=1,
        predicted_artifact_bytes=1,
        predicted_resident_bytes=1,
    )
    (work / "plan.json").write_text(plan.model_dump_json())
    ledger = write_model(folder, config, QuantizedWeights(work))
    if sets:
        write_prefix_file(folder, sets, bits=32)
        ledger.append(file_entry(folder, PREFIX_FILE))
        task = task.model_copy(update={"prefix": prefix_use(sets, longest_query_tokens=12)})
    names = write_deployment_files(folder, config, tokenizer, task, context_tokens=context_tokens, threads=1)
    ledger += [file_entry(folder, name) for name in names]
    written = Manifest(
        name="tiny",
        target="test",
        seed=0,
        recipe_digest="0",
        target_digest="0",
        versions={},
        files=folder_hashes(folder),
        plan=plan,
        ledger=tuple(ledger),
        parity=(),
        logit_tokens=task.logit_tokens,
    )
    (folder / "edgeicl.json").write_text(written.model_dump_json())
    return folder


def tiny_tokenizer() -> Tokenizer:
    """One token a word, `</s>` put first as OPT does."""
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 0)])
    return tokenizer


def tiny_task(verbalizers: Mapping[str, str]) -> TaskFile:
    """The pattern `{premise} {hypothesis}` with one token per word of each verbalizer."""
    return TaskFile(
        pattern="{premise} {hypothesis}",
        verbalizers=dict(verbalizers),
        verbalizer_tokens={k: tuple(WORDS.index(word) for word in v.split()) for k, v in verbalizers.items()},
        separator=" ",
    )


@pytest.fixture(autouse=True)
def _nobody_else_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run beside each other: rounds would wait for quiet in vain."""
    monkeypatch.setattr("edgeicl.bench.rounds.settled_share", lambda: 0.0)


@pytest.fixture
def make_artifact(tmp_path: Path) -> Callable[..., Path]:
    """Builds a tiny artifact in int8; keyword arguments: name, verbalizers, sets, labels_alone, attention,
    cache_bits.
    """

    def make(
        name: str = "artifact",
        verbalizers: Mapping[str, str] = {"entailment": "yes", "contradiction": "no"},
        sets: Sequence[NDArray[Any]] = (),
        labels_alone: bool = False,
        attention: PromptAttention = "tiled",
        cache_bits: CacheBits = 32,
    ) -> Path:
        return build_artifact(
            tmp_path / name,
            TINY,
            Format(bits=8, block_size=32),
            tiny_tokenizer(),
            tiny_task(verbalizers),
            scale=20.0 if cache_bits == 32 else 1.0,
            sets=sets,
            labels_alone=labels_alone,
            prompt_attention=attention,
            cache_bits=cache_bits,
        )

    return make
