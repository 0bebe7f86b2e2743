"""New demonstrations for a finished artifact: its prefix made anew from its own weights, without training."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeicl.artifact import write_manifest
from edgeicl.bench.artifact import Artifact
from edgeicl.compressor import compressor_folder
from edgeicl.errors import BudgetError, DataError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.replacement import replacing
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.catalog import load_target
from edgeicl.specs.manifest import (
    COMPRESSOR,
    MANIFEST,
    PREFIX_FILE,
    TASK_FILE,
    Deviation,
    Manifest,
    PrefixUse,
    TaskFile,
)
from edgeicl.tasks.demonstrations import choose
from edgeicl.tasks.prompt import PromptEncoder

if TYPE_CHECKING:
    from edgeicl.tasks.example import Example

log = logging.getLogger(__name__)

_TARGET_FILE = "target.resolved.yaml"
# For people, and not about the deployed files: they would tell of the demonstrations before.
_REPORTS = ("report.html", "report.md")


def prefix_kind(artifact: Artifact) -> Literal["tokens", "vectors"]:
    """What stands before the artifact's queries. DataError where nothing does."""
    return _carried(artifact)[1].kind


def demonstration_sets(
    artifact: Artifact,
    examples: Sequence[Example],
    *,
    count: int | None = None,
    sets: int = 1,
    balanced: bool = True,
    drop_to_fit: bool = False,
) -> list[NDArray[np.int64]]:
    """Token ids [P] of each demonstration set, as they stand before a query or are compressed to what does.

    Args:
        count: Demonstrations of a set, drawn by the set's number as seed; all `examples` in their order unless
            given.
        balanced: As many of each label.
        drop_to_fit: Leaves out the last demonstrations of a set that is longer than what reads it allows.

    Raises:
        DataError: an artifact without demonstrations, too few examples, or a set that doesn't fit.
    """
    task, use = _carried(artifact)
    encoder = PromptEncoder(
        artifact.tokenizer, pattern=task.pattern, verbalizers=task.verbalizers, separator=task.separator
    )
    room, beside = _room(artifact, use)
    found = []
    for seed in range(sets):
        shown = list(examples)
        if count is not None:
            shown = choose(
                examples,
                count=count,
                balanced=balanced,
                seed=seed,
                labels=encoder.labels,
                where="the data of --demonstrations",
            )
        fitting = len(shown)
        while fitting and len(encoder.demonstrations(shown[:fitting])) > room:
            fitting -= 1
        if fitting < len(shown):
            told = (
                f"set {seed}: {len(shown)} demonstrations take {len(encoder.demonstrations(shown))} tokens; "
                f"found room for {room}, beside {beside}: {fitting} fit"
            )
            if not drop_to_fit or not fitting:
                raise DataError(told, next_step="give fewer or shorter ones, or let --fit leave out the last")
            log.warning("%s, the rest is left out", told)
        found.append(np.array(encoder.demonstrations(shown[:fitting]), dtype=np.int64))
    return found


def replace_prefix(artifact: Artifact, sets: Sequence[NDArray[Any]], *, output: Path) -> Manifest:
    """Writes `artifact` with another prefix to `output`, which may be where it is; its new manifest.

    Accuracy and speed that were measured with the demonstrations before are left out.

    Args:
        sets: Of each demonstration set token ids int64 [P], or vectors float32 [P, H] that a hypernetwork made
            of it, as `specs.prefix` describes them; of the kind that the artifact has.

    Raises:
        DataError: sets of another kind, or that don't fit the model or its context; or see `replacing`.
        BudgetError: the artifact becomes larger than its target allows.
        ParityError: what it computes behind a set isn't finite.
    """
    from edgeicl.emit.generation_checks import check_repeatable
    from edgeicl.emit.lowering import file_entry
    from edgeicl.emit.prefix import prefix_use, write_prefix_file
    from edgeicl.models.prefix_file import read_prefix

    task, use = _carried(artifact)
    _check(artifact, use, sets)
    with replacing(output, MANIFEST) as partial:
        for path in sorted(artifact.path.iterdir()):
            if path.name == COMPRESSOR:
                shutil.copytree(path, partial / path.name)
            elif path.is_file() and path.name not in (MANIFEST, PREFIX_FILE, TASK_FILE, *_REPORTS):
                shutil.copyfile(path, partial / path.name)
        write_prefix_file(partial, sets, bits=_bits(artifact))
        now = prefix_use(sets, longest_query_tokens=use.longest_query_tokens)
        text = task.model_copy(update={"prefix": now}).model_dump_json(indent=1, exclude_none=True)
        (partial / TASK_FILE).write_text(text + "\n", encoding="utf-8")
        replaced = (PREFIX_FILE, TASK_FILE)
        kept = [entry for entry in artifact.manifest.ledger if entry.file not in replaced]
        ledger = (*kept, *(file_entry(partial, file) for file in replaced))
        _require_budget(partial, sum(entry.bytes for entry in ledger))
        decoder = artifact.decoder(threads=1, context_tokens=max(map(len, sets)) + 2)
        for rows in read_prefix(partial / PREFIX_FILE)[0]:
            decoder.load_prefix(rows)
            check_repeatable(decoder, [[0]])
        manifest = artifact.manifest.model_copy(
            update={
                "ledger": ledger,
                "prefix": now,
                "parity": tuple(row for row in artifact.manifest.parity if "behind set" not in row.name),
                "accuracy": (),
                "evaluation": None,
                "bench": None,
                "deviations": (*artifact.manifest.deviations, _NOT_MEASURED),
            }
        )
        _tell_in_card(partial / "README.md", now)
        return write_manifest(partial, manifest)


_NOT_MEASURED = Deviation(
    what="measurements",
    where=PREFIX_FILE,
    asked="accuracy and speed behind the demonstrations that the artifact has",
    got="none",
    why="edgeicl prefix replaced those that were measured; use edgeicl eval and edgeicl bench",
)


def _room(artifact: Artifact, use: PrefixUse) -> tuple[int, str]:
    """Tokens that a set may have, and beside what: a query, or the placeholders of the hypernetwork."""
    if use.kind == "tokens":
        query = use.longest_query_tokens
        return artifact.context_tokens - query, f"a query of up to {query}"
    from edgeicl.models.loading import config_number

    vectors = max(use.tokens)
    reads = config_number(compressor_folder(artifact), "max_position_embeddings")
    return reads - vectors, f"the {vectors} vectors that it becomes"


def _carried(artifact: Artifact) -> tuple[TaskFile, PrefixUse]:
    """The task and what it says of a prefix. DataError where there is none to replace."""
    if artifact.task is None or artifact.task.prefix is None:
        raise DataError(
            f"{artifact.path} answers without demonstrations: it has no {PREFIX_FILE} to replace",
            next_step="compile a recipe whose artifact carries them, such as method none with "
            "distill.prefix: demonstrations",
        )
    return artifact.task, artifact.task.prefix


def _check(artifact: Artifact, use: PrefixUse, sets: Sequence[NDArray[Any]]) -> None:
    kinds = {"tokens" if values.ndim == 1 else "vectors" for values in sets}
    if kinds != {use.kind}:
        raise DataError(
            f"{artifact.path} stands behind {use.kind}; found {' and '.join(sorted(kinds)) or 'nothing'}",
            next_step="make the new prefix the way the old one was made",
        )
    room = artifact.context_tokens - use.longest_query_tokens
    longest = max(map(len, sets))
    if not 0 < min(map(len, sets)) <= longest <= room:
        raise DataError(
            f"a set takes {longest} positions; expected 1 to {room}, so that a query of up to "
            f"{use.longest_query_tokens} tokens fits behind it",
            next_step="give fewer or shorter demonstrations",
        )
    width = anatomy_of(model_config(artifact.path)).embedding_width
    for values in sets:
        if values.ndim == 1 and not 0 <= values.min() <= values.max() < artifact.vocabulary:
            raise DataError(f"a token {values.max()} is outside the vocabulary of {artifact.vocabulary}")
        if values.ndim == 2 and (values.shape[1] != width or not np.isfinite(values).all()):
            raise DataError(f"vectors of {values.shape[1]} numbers; expected {width} finite ones in each")


def _bits(artifact: Artifact) -> Literal[16, 32]:
    """Of the numbers in the present prefix, whose format stays."""
    return 16 if next(iter(artifact.prefixes[0].values())).dtype == np.float16 else 32


def _require_budget(folder: Path, total_bytes: int) -> None:
    path = folder / _TARGET_FILE
    limit = load_target(str(path)).budget.artifact_bytes if path.is_file() else None
    if limit is not None and total_bytes > limit:
        raise BudgetError(
            f"with this prefix the artifact takes {total_bytes:,} bytes ({format_byte_size(total_bytes)}); "
            f"the budget in {_TARGET_FILE} is {limit:,}",
            smallest_bytes=total_bytes,
            next_step="give fewer sets, or fewer or shorter demonstrations",
        )


def _tell_in_card(card: Path, use: PrefixUse) -> None:
    if card.is_file():
        with card.open("a", encoding="utf-8") as stream:
            stream.write(
                "\n## Other demonstrations\n\nAfter the checks and measurements above, "
                "`edgeicl prefix` replaced what stands before a query: now sets of "
                f"{', '.join(map(str, use.tokens))} positions.\n"
            )
