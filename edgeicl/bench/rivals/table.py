"""Every rival by its name."""

from __future__ import annotations

from collections.abc import Sequence

from edgeicl.bench.rivals import (
    ctranslate2_int8,
    executorch_8da4w,
    openvino,
    optimum_int8,
    torch_cuda,
    transformers_eager,
)
from edgeicl.bench.rivals.rival import Rival
from edgeicl.errors import Problem, SpecError
from edgeicl.specs.nearest import one_of

RIVALS = {
    rival.name: rival
    for module in (optimum_int8, transformers_eager, openvino, executorch_8da4w, ctranslate2_int8, torch_cuda)
    for rival in module.RIVALS
}
REFERENCE = RIVALS["hf-fp32"]
"""What the logits of every rival are compared with."""


def rivals_named(names: Sequence[str]) -> list[Rival]:
    """The rivals in the order of `names`, each once. SpecError that lists every unknown one."""
    problems = [
        Problem("--with", f"there is no rival {name!r}", one_of(name, RIVALS, shown=len(RIVALS)))
        for name in names
        if name not in RIVALS
    ]
    if problems or not names:
        raise SpecError("compare", problems or [Problem("--with", "no rival", "expected at least one")])
    return [RIVALS[name] for name in dict.fromkeys(names)]


def require_provider(rivals: Sequence[Rival], provider: str) -> None:
    """SpecError that lists every rival that another kind of processor runs than the artifacts."""
    fitting = [rival.name for rival in RIVALS.values() if rival.provider == provider]
    problems = [
        Problem(
            "--with",
            f"{rival.name} runs on {rival.provider}, the artifacts on {provider}",
            f"expected any of {', '.join(fitting)}, or --on {'cuda' if rival.provider == 'cuda' else 'local'}",
        )
        for rival in rivals
        if rival.provider != provider
    ]
    if problems:
        raise SpecError("compare", problems)


def environments_named(names: Sequence[str]) -> None:
    """SpecError unless every name is that of an environment of a rival."""
    known = sorted({rival.environment.name for rival in RIVALS.values()})
    problems = [
        Problem("--python", f"there is no environment {name!r}", f"expected any of {', '.join(known)}")
        for name in names
        if name not in known
    ]
    if problems:
        raise SpecError("compare", problems)
