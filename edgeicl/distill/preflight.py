"""What must hold between teacher, student and task; looked at before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeicl.distill.evaluate import IN_CONTEXT_STUDENT
from edgeicl.distill.label_reader import Over
from edgeicl.errors import DataError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.loading import check_same_tokens, config_number
from edgeicl.models.model_folder import model_config
from edgeicl.specs.manifest import Deviation


def check_models(
    teacher: Path,
    student: Path,
    tokens: Mapping[str, tuple[int, ...]],
    *,
    over: Over,
    same_head: bool,
    query_tokens: int,
    prompt_tokens: int,
) -> tuple[Deviation, ...]:
    """Checks two model folders against each other and against the task's longest prompts.

    Args:
        same_head: Whether the two are compared token by token, over the whole vocabulary.
        query_tokens: Of the longest prompt without demonstrations.
        prompt_tokens: Of the longest with them.

    Returns:
        A deviation where the student can't read prompts with demonstrations: it then goes without the
        in-context baseline.

    Raises:
        DataError: a student that can't be compiled, different tokens or heads, label words that the
            objective can't use, a model that reads fewer tokens than the prompts it gets have.
    """
    reads = anatomy_of(model_config(student)).positions
    check_same_tokens(teacher, student, same_head=same_head)
    if over == "vocabulary" and any(len(word) > 1 for word in tokens.values()):
        raise DataError(
            f"an objective over the vocabulary needs verbalizers of one token; found {dict(tokens)}",
            next_step="choose other verbalizers, or set distill.objective.over: verbalizers",
        )
    limit = config_number(teacher, "max_position_embeddings")
    if prompt_tokens > limit:
        raise DataError(
            f"the longest prompt with demonstrations has {prompt_tokens:,} tokens; "
            f"the teacher {teacher} reads {limit:,}",
            next_step="lower distill.demonstrations.count, or leave the longest examples out of the data",
        )
    if query_tokens > reads:
        raise DataError(
            f"the longest prompt without demonstrations has {query_tokens:,} tokens; "
            f"the student {student} reads {reads:,}",
            next_step="leave the longest examples out of the data, or take a student that reads more",
        )
    if prompt_tokens <= reads:
        return ()
    return (
        Deviation(
            what="baseline",
            where=IN_CONTEXT_STUDENT,
            asked=f"prompts of up to {prompt_tokens} tokens",
            got="no row in the accuracy table",
            why=f"the student reads {reads} tokens",
        ),
    )
