"""The small files beside the graph: how onnxruntime-genai, transformers and an app read the artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from edgeicl.models.anatomy import Anatomy
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.specs.manifest import DECODER_FILE, GENAI_FILE, MODEL_FILE, TASK_FILE, TaskFile

# how a checkpoint was stored or made, which means nothing to whoever runs the artifact
_OF_THE_CHECKPOINT = ("_name_or_path", "dtype", "torch_dtype", "transformers_version")


def write_deployment_files(
    folder: Path,
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    task: TaskFile,
    *,
    context_tokens: int,
    threads: int,
    provider: Literal["cpu", "cuda"] = "cpu",
    position_ids: bool = False,
) -> tuple[str, ...]:
    """Writes everything but graph and weights into `folder`; the names of the files.

    An artifact that has logits of labels alone gets nothing that a generating runtime would load: what
    onnxruntime-genai reads has another name there, and generation_config.json is left out.

    Args:
        config: The student's config.json.
        context_tokens: Longest text that memory is set aside for; at most the model's positions.
        threads: Threads that onnxruntime-genai is told to use.
        provider: What it is told to run the graph with.
        position_ids: Whether the graph has an input of this name.
    """
    anatomy = anatomy_of(config)
    tokenizer_json = json.loads(tokenizer.to_str())
    generates = task.logit_tokens is None
    decoder = genai_config(
        anatomy,
        context_tokens=context_tokens,
        threads=threads,
        provider=provider,
        position_ids=position_ids,
    )
    files: dict[str, object] = {
        "config.json": {key: value for key, value in config.items() if key not in _OF_THE_CHECKPOINT},
        GENAI_FILE if generates else DECODER_FILE: decoder,
        # the vocabulary is the largest of these files: no spaces in it
        "tokenizer.json": tokenizer_json,
        "tokenizer_config.json": tokenizer_config(anatomy, tokenizer_json),
        TASK_FILE: task.model_dump(mode="json", exclude_none=True),
    }
    if generates:
        files["generation_config.json"] = {**anatomy.special_ids, "do_sample": False}
    for name, content in files.items():
        large = name == "tokenizer.json"
        text = json.dumps(
            content,
            ensure_ascii=False,
            indent=None if large else 1,
            separators=(",", ":") if large else None,
            sort_keys=not large and name != TASK_FILE,
        )
        (folder / name).write_text(text + "\n", encoding="utf-8")
    return tuple(files)


def genai_config(
    anatomy: Anatomy,
    *,
    context_tokens: int,
    threads: int,
    provider: Literal["cpu", "cuda"] = "cpu",
    position_ids: bool = False,
) -> dict[str, Any]:
    """What onnxruntime-genai needs to run the graph; it rejects the type `opt`, so the type is `decoder`.

    `position_ids`: whether the graph has an input of this name.
    """
    session: dict[str, Any] = {"intra_op_num_threads": threads}
    if provider == "cuda":
        session["provider_options"] = [{"cuda": {}}]
    return {
        "model": {
            "type": "decoder",
            **anatomy.special_ids,
            "context_length": anatomy.positions,
            "vocab_size": anatomy.vocabulary,
            "decoder": {
                "filename": MODEL_FILE,
                "session_options": session,
                "hidden_size": anatomy.hidden,
                "head_size": anatomy.head_size,
                "num_attention_heads": anatomy.heads,
                "num_key_value_heads": anatomy.kv_heads,
                "num_hidden_layers": anatomy.layers,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    **({"position_ids": "position_ids"} if position_ids else {}),
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": min(context_tokens, anatomy.positions),
            "min_length": 0,
            "num_beams": 1,
            "past_present_share_buffer": not anatomy.exported,
        },
    }


def tokenizer_config(anatomy: Anatomy, tokenizer_json: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json for a tokenizer.json.

    `add_bos_token` says what tokenizer.json's post-processor does already: onnxruntime-genai reads only the
    former (and adds a token at the end as well if it is missing), transformers may read either.
    """
    text_of = {entry["id"]: entry["content"] for entry in tokenizer_json["added_tokens"]}
    vocabulary = tokenizer_json["model"].get("vocab")
    if isinstance(vocabulary, dict):
        text_of = {number: text for text, number in vocabulary.items()} | text_of
    first = {key: ids[0] if isinstance(ids, list) else ids for key, ids in anatomy.special_ids.items()}
    bos, eos, pad = (text_of.get(first.get(key)) for key in ("bos_token_id", "eos_token_id", "pad_token_id"))
    byte_level = tokenizer_json["model"]["type"] == "BPE" and "ByteLevel" in json.dumps(
        tokenizer_json["pre_tokenizer"]
    )
    return {
        "tokenizer_class": "GPT2Tokenizer" if byte_level else "PreTrainedTokenizerFast",
        "add_bos_token": _starts_with(tokenizer_json, first.get("bos_token_id")),
        "add_prefix_space": False,
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": pad,
        "unk_token": tokenizer_json["model"].get("unk_token") or eos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": anatomy.positions,
    }


def _starts_with(tokenizer_json: Mapping[str, Any], token_id: int | None) -> bool:
    ids: list[int] = Tokenizer.from_str(json.dumps(tokenizer_json)).encode("a").ids
    return ids[:1] == [token_id]
