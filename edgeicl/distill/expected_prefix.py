"""How long what will stand before every query is, before anything has made it."""

from __future__ import annotations

from edgeicl.distill.carried_demonstrations import carried_contexts
from edgeicl.distill.icl_material import IclMaterial
from edgeicl.distill.task_run import TaskRun


def expected_prefix(run: TaskRun) -> tuple[tuple[int, ...], bool]:
    """Positions of each set that the artifact will carry, and whether their token ids are stored too.

    Which seed's sets method `icl` deploys is known once the student is there; here the longest are taken.
    """
    settings = run.recipe.distill
    if settings.method == "icl":
        sets = IclMaterial(run).sets.values()
        return max((tuple(map(len, several)) for several in sets), key=sum), True
    if settings.method == "mend":
        assert settings.mend is not None  # the schema sees to it
        return (settings.mend.vectors,) * settings.mend.votes, False
    if settings.prefix == "demonstrations":
        contexts, _ = carried_contexts(run)
        return tuple(map(len, contexts.values())), True
    return (), False
