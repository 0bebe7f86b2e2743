"""What must hold between teacher, student and task; looked at before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeicl.distill.evaluate import IN_CONTEXT_STUDENT
from edgeicl.distill.label_reader import Over
from edgeicl.errors import DataError
from edgeicl.models.loading import check_same_tokens
from edgeicl.models.model_folder import model_config
from edgeicl.specs.manifest import Deviation


def check_models(
    teacher: Path, student: Path, tokens: Mapping[str, tuple[int, ...]], *, over: Over, prompt_tokens: int
) -> tuple[Deviation, ...]:
    """Checks two model folders against each other and against prompts of up to `prompt_tokens`.

    Returns:
        A deviation where the student can't read prompts with demonstrations: it then goes without the
        in-context baseline.

    Raises:
        DataError: different tokens or heads, label words that the objective can't use, a teacher that reads
            fewer tokens than the prompts have.
    """
    check_same_tokens(teacher, student, same_head=over == "vocabulary")
    if over == "vocabulary" and any(len(word) > 1 for word in tokens.values()):
        raise DataError(
            f"an objective over the vocabulary needs verbalizers of one token; found {dict(tokens)}",
            next_step="choose other verbalizers, or set distill.objective.over: verbalizers",
        )
    limit = context_tokens(teacher)
    if prompt_tokens > limit:
        raise DataError(
            f"the longest prompt with demonstrations has {prompt_tokens:,} tokens; "
            f"the teacher {teacher} reads {limit:,}",
            next_step="lower distill.demonstrations.count, or leave the longest examples out of the data",
        )
    limit = context_tokens(student)
    if prompt_tokens <= limit:
        return ()
    return (
        Deviation(
            what="baseline",
            where=IN_CONTEXT_STUDENT,
            asked=f"prompts of up to {prompt_tokens} tokens",
            got="no row in the accuracy table",
            why=f"the student reads {limit} tokens",
        ),
    )


def context_tokens(folder: Path) -> int:
    """Tokens that the model in `folder` reads at once."""
    return int(model_config(folder)["max_position_embeddings"])
