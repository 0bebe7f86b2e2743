"""Opens an artifact the way an app would: no torch, no transformers, and no file that isn't the one written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from edgeicl.errors import DataError, IntegrityError
from edgeicl.models.anatomy import EMBEDDING, HEAD, prompt_tensors
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.growing_decoder import GrowingDecoder
from edgeicl.models.model_folder import model_config
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.models.prefix_file import Rows, prefix_tokens, read_prefix
from edgeicl.specs.manifest import (
    DECODER_FILE,
    GENAI_FILE,
    MANIFEST,
    MODEL_FILE,
    PREFIX_FILE,
    TASK_FILE,
    WEIGHTS_FILE,
    Manifest,
    TaskFile,
)
from edgeicl.specs.spec import Spec
from edgeicl.store import digest_of, file_sha256

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SpecType = TypeVar("SpecType", bound=Spec)


@dataclass(frozen=True)
class Artifact:
    """A deployed folder whose files are those that were written; `task` is None where it has no task.json.

    `sha256` identifies graph and weights, whatever else lies in the folder. `context_tokens` is what the target
    sets memory aside for, at most the model's positions.
    """

    path: Path
    sha256: str
    manifest: Manifest
    task: TaskFile | None
    vocabulary: int
    context_tokens: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    end_tokens: frozenset[int]

    @property
    def graph(self) -> Path:
        return self.path / MODEL_FILE

    @cached_property
    def tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.path / "tokenizer.json"))

    @cached_property
    def prefixes(self) -> list[Rows]:
        """What stands before every query: one for each demonstration set; none for most artifacts.

        Raises:
            IntegrityError: rows that aren't those that task.json describes.
        """
        if self.task is None or self.task.prefix is None:
            return []
        path, tokens = self.path / PREFIX_FILE, self.task.prefix.tokens
        try:
            found = read_prefix(path)[0]
        except ValueError as error:
            raise IntegrityError(str(error), next_step="copy the artifact again") from error
        names = {f"past_key_values.{n}.{kind}" for n in range(self.layers) for kind in ("key", "value")}
        shapes = [{name: values.shape for name, values in rows.items()} for rows in found]
        if shapes != [dict.fromkeys(names, (self.kv_heads, count, self.head_size)) for count in tokens]:
            shape = f"[{self.kv_heads}, P, {self.head_size}]"
            raise IntegrityError(
                f"{path} has sets of {[prefix_tokens(rows) for rows in found]} tokens; expected keys and "
                f"values {shape} of {self.layers} layers, with P of {list(tokens)}",
                next_step="copy the artifact again, or compile it again",
            )
        return found

    @property
    def prefix_tokens(self) -> int:
        """Tokens that stand before a query, at most; 0 without a prefix."""
        return max(map(prefix_tokens, self.prefixes), default=0)

    @property
    def model_bytes(self) -> int:
        """Bytes of the graph and its weights alone."""
        return sum((self.path / name).stat().st_size for name in (MODEL_FILE, WEIGHTS_FILE))

    @property
    def artifact_bytes(self) -> int:
        """Bytes of the files that an app needs, as the ledger counts them."""
        return sum(entry.bytes for entry in self.manifest.ledger)

    @property
    def weight_bytes_per_token(self) -> int:
        """Bytes of weights that one token reads: all but tables of which it reads a row.

        Those are the positions (of a fused graph), and an embedding that is not the head too.
        """
        if self.manifest.engine == "growing":  # of which nothing is known but the names of its groups
            lookups, tied = set[str](), all(entry.group != HEAD for entry in self.manifest.plan.groups)
        else:
            anatomy = anatomy_of(model_config(self.path))
            lookups, tied = {name for name, shape in anatomy.others.items() if len(shape) == 2}, anatomy.tied
        looked_up = EMBEDDING if not tied or not self.generates else None
        return sum(
            entry.bytes
            for entry in self.manifest.ledger
            if entry.file == WEIGHTS_FILE
            and entry.name not in lookups
            and not entry.name.startswith(prompt_tensors(""))
            and (entry.group is None or entry.group != looked_up)
        )

    def cache_bytes(self, depth_tokens: float) -> int:
        """Bytes of keys and values that one token reads at `depth_tokens` of context."""
        number_bytes = self.manifest.plan.cache_bits // 8
        return round(2 * self.layers * self.kv_heads * self.head_size * number_bytes * depth_tokens)

    @property
    def generates(self) -> bool:
        """Whether it has logits of the whole vocabulary, not of labels alone."""
        return self.manifest.logit_tokens is None

    def decoder(
        self, *, threads: int, context_tokens: int, batch_size: int = 1
    ) -> OnnxDecoder | GrowingDecoder:
        """A session of this artifact with its own key/value cache."""
        engine = OnnxDecoder if self.manifest.engine == "fused" else GrowingDecoder
        return engine(self.graph, threads=threads, context_tokens=context_tokens, batch_size=batch_size)


def open_artifact(path: Path) -> Artifact:
    """The artifact in the folder `path`, its files checked against the manifest where it has one.

    Raises:
        DataError: no artifact there, or one of its files can't be read.
        IntegrityError: a file is missing or is not the one that was written (lists all of them), or the
            manifest can't be read.
    """
    if not (path / MODEL_FILE).is_file():
        raise DataError(
            f"{path} is no artifact: found no {MODEL_FILE} in it",
            next_step="name the folder that `edgeicl compile` printed",
        )
    manifest = _read(path / MANIFEST, Manifest)
    if manifest is None:
        raise IntegrityError(
            f"{path} has no {MANIFEST}: nothing says what its files should be, so none of them is run",
            next_step="copy the artifact again with all its files, or compile it again",
        )
    verify_files(path, manifest)
    described = path / (DECODER_FILE if manifest.logit_tokens is not None else GENAI_FILE)
    config = _read_json(described)
    try:
        model = config["model"]
        decoder = model["decoder"]
        end = model["eos_token_id"]
        return Artifact(
            path=path,
            sha256=_content_sha256(path),
            manifest=manifest,
            task=_read(path / TASK_FILE, TaskFile),
            vocabulary=int(model["vocab_size"]),
            context_tokens=min(int(model["context_length"]), int(config["search"]["max_length"])),
            layers=int(decoder["num_hidden_layers"]),
            heads=int(decoder["num_attention_heads"]),
            kv_heads=int(decoder["num_key_value_heads"]),
            head_size=int(decoder["head_size"]),
            end_tokens=frozenset(end if isinstance(end, list) else [end]),
        )
    except KeyError as error:
        raise DataError(f"{described} has no key {error}") from error


def verify_files(folder: Path, manifest: Manifest) -> None:
    """IntegrityError unless every deployed file, graph and weights among them, is there with its hash.

    The report and what else people read is not looked at: to edit or to leave out.
    """
    deployed = {MODEL_FILE, WEIGHTS_FILE, *(entry.file for entry in manifest.ledger)}
    wrong = []
    for name in sorted(deployed):
        path, sha256 = folder / name, manifest.files.get(name)
        if sha256 is None:
            wrong.append(f"{name}: {MANIFEST} has no hash of it")
            continue
        if not path.is_file():
            wrong.append(f"{name}: missing")
        elif (found := file_sha256(path)) != sha256:
            wrong.append(f"{name}: found SHA-256 {found[:12]}..., expected {sha256[:12]}...")
    if wrong:
        raise IntegrityError(
            f"{folder} is not what its {MANIFEST} describes:\n  " + "\n  ".join(wrong),
            next_step="copy the artifact again, or compile it again",
        )


def _content_sha256(folder: Path) -> str:
    return digest_of({name: file_sha256(folder / name) for name in (MODEL_FILE, WEIGHTS_FILE)})


def _read(path: Path, model: type[SpecType]) -> SpecType | None:
    if not path.is_file():
        return None
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise IntegrityError(
            f"{path} is not what edgeicl writes{f', at {key}' if key else ''}: {first['msg']}",
            next_step="copy the artifact again, or compile it again",
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    return value
