"""Models and tokenizers from folders in the hub's layout. Code that comes with a model is never run."""

from __future__ import annotations

import logging
import shutil
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer

from edgeicl.errors import DataError
from edgeicl.models.configuration import config_number
from edgeicl.models.conversion import fast_tokenizer, whole_texts
from edgeicl.models.memory import LoadIn, available_bytes, check_memory
from edgeicl.models.model_folder import TOKENIZER_FILES, model_folder, weight_files, weights_digest
from edgeicl.models.sharded_loading import load_sharded
from edgeicl.models.threads import fit_threads

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "check_same_tokens",
    "config_number",
    "load_model",
    "load_tokenizer",
    "model_folder",
    "save_model",
    "weights_digest",
]

log = logging.getLogger(__name__)

_HALF = torch.float16  # what bitsandbytes computes in
# Of every kind that tokenizers treat in ways of their own: case, digits, accents, signs, white space.
_PROBES = (
    "The old dog chased the cat, didn't it? Yes",
    " no leading word; UPPER case",
    "3.14 and 2,000,000 at 50 %",
    "Zoë's naïve café: 東京 🙂",
    "two  spaces\n\nand lines\tand tabs",
)


def load_model(
    folder: Path,
    load_in: LoadIn = "fp32",
    *,
    device: str | torch.device = "cpu",
    shards: int = 1,
) -> PreTrainedModel:
    """The causal language model in `folder`, in evaluation mode, on `device`.

    `shards`: how many processes share its layers' weights, all of the launch or none; see `sharded_loading`.

    Raises:
        DataError: 8 or 4 bits without CUDA or in shards, too little memory, weights that are missing or
            don't fit.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    device = torch.device(device)
    if load_in in ("8bit", "4bit") and device.type != "cuda":
        raise DataError(
            f"{folder}: load_in {load_in} needs CUDA (bitsandbytes); found the device {device}",
            next_step="set load_in: bf16 or fp32, or run on a machine with a CUDA device",
        )
    if load_in in ("8bit", "4bit") and shards > 1:
        raise DataError(
            f"{folder}: weights in {load_in} can't be shared among processes; found FSDP in the launch",
            next_step="set load_in: bf16, or launch without FSDP",
        )
    check_memory(folder, load_in, available_bytes=available_bytes(device), shards=shards)
    if not weight_files(folder):
        raise DataError(f"{folder}: found no *.safetensors; expected a folder that model_folder() returned")
    transformers_logging.disable_progress_bar()
    dtype = torch.bfloat16 if load_in == "bf16" else torch.float32
    if shards > 1:
        return load_sharded(folder, dtype, device)
    options: dict[str, Any] = {"dtype": dtype}
    if load_in in ("8bit", "4bit"):
        from transformers import BitsAndBytesConfig

        quantized: dict[str, Any] = {"load_in_8bit": True}
        if load_in == "4bit":  # as in QLoRA (arXiv 2305.14314, section 3), computing in what activations are in
            quantized = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": _HALF}
        options = {
            "dtype": _HALF,
            "quantization_config": BitsAndBytesConfig(**quantized),
            "device_map": {"": device},
        }
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            str(folder),
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise DataError(f"{folder} can't be loaded as a causal language model: {error}") from error
    missing = sorted(str(name) for name in report["missing_keys"])
    if missing:
        raise DataError(
            f"{folder}: found no weights for {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''} "
            f"({len(missing)} in all); expected every weight of {type(model).__name__}"
        )
    if "device_map" not in options:
        model = model.to(device)
    if device.type == "cpu":
        fit_threads(model.num_parameters())
    loaded: PreTrainedModel = model.eval()
    return loaded


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder, which neither pads nor cuts. DataError if it can't be read."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return fast_tokenizer(folder)
    try:
        return whole_texts(Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{path} can't be read: {error}") from error


def check_same_tokens(teacher: Path, student: Path, *, same_head: bool, role: str = "teacher") -> None:
    """DataError unless both tokenizers have one vocabulary and cut texts alike.

    A token id then means the same to both, and prompts of the one are what the other is used to.
    `same_head` also asks for logits of the same length, as a loss over the vocabulary needs. `role` is what
    messages call the first model.
    """
    tokenizers = [load_tokenizer(folder) for folder in (teacher, student)]
    teacher_tokens, student_tokens = (tokenizer.get_vocab() for tokenizer in tokenizers)
    different = sorted(
        token
        for token in teacher_tokens.keys() | student_tokens.keys()
        if teacher_tokens.get(token) != student_tokens.get(token)
    )
    if different:
        shown = ", ".join(
            f"{token!r}: {teacher_tokens.get(token, 'none')} and {student_tokens.get(token, 'none')}"
            for token in different[:3]
        )
        raise DataError(
            f"{role} {teacher} and student {student} have different tokenizers: {len(different):,} of "
            f"{len(teacher_tokens.keys() | student_tokens.keys()):,} tokens differ (ids: {shown})",
            next_step=f"take a {role} and a student of one model family",
        )
    for text in _PROBES:
        of_teacher, of_student = (tokenizer.encode(text).tokens for tokenizer in tokenizers)
        if of_teacher != of_student:
            differ = next(n for n, pair in enumerate(zip_longest(of_teacher, of_student)) if len(set(pair)) > 1)
            raise DataError(
                f"{role} {teacher} and student {student} have the same tokens but cut texts differently: "
                f"{text!r} becomes {of_teacher[differ:][:5]} and {of_student[differ:][:5]} "
                f"from token {differ} on",
                next_step="give both the same tokenizer.json, or take models of one family",
            )
    widths = [config_number(folder, "vocab_size") for folder in (teacher, student)]
    if min(widths) <= max(teacher_tokens.values()):
        raise DataError(
            f"the tokenizer has ids up to {max(teacher_tokens.values()):,}; found vocab_size {widths[0]:,} "
            f"({role} {teacher}) and {widths[1]:,} (student {student})"
        )
    if same_head and widths[0] != widths[1]:
        raise DataError(
            f"{role} {teacher} has {widths[0]:,} logits and student {student} {widths[1]:,}; "
            "a loss over the vocabulary needs the same",
            next_step="set distill.objective.over: verbalizers",
        )


def save_model(model: PreTrainedModel, source_folder: Path, destination: Path) -> None:
    """Writes `model` in fp32 in the hub's layout, with the tokenizer of `source_folder`."""
    destination.mkdir(parents=True, exist_ok=True)
    model.to(torch.float32).save_pretrained(destination, safe_serialization=True)
    for name in TOKENIZER_FILES:
        if (source_folder / name).is_file():
            shutil.copyfile(source_folder / name, destination / name)
    if not (destination / "tokenizer.json").is_file():
        fast_tokenizer(source_folder).save(str(destination / "tokenizer.json"))
