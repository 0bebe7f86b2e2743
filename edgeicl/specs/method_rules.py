"""Which keys of `distill` go together: what each method needs, and what it does not read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeicl.specs.adapter import Lora
from edgeicl.specs.on_policy import OnPolicy

if TYPE_CHECKING:
    from edgeicl.specs.distillation import Distill
    from edgeicl.specs.spec import Spec

# Method `none` is the exit from any recipe: what other methods read is let stand there.
_READ_BY = {
    "student.adapter": ("context",),
    "demonstrations.sets_per_student": ("context",),
    "objective.on_policy": ("context",),
    "on_policy": ("context", "none"),
    "icl": ("icl", "none"),
    "mend": ("mend", "none"),
    "meta_kd": ("meta_kd", "none"),
    "transfer_examples": ("context", "mend", "none"),
}
"""Key -> the methods that read it; what is not here, all do."""

Rule = tuple[str, str]
"""The key it is about, and what was found and expected."""


def broken_rules(distill: Distill) -> Iterator[Rule]:
    """Every rule that `distill` breaks."""
    yield from _of_every_method(distill)
    yield from _not_read(distill)
    if distill.method == "mend":
        yield from _of_mend(distill)
    if distill.method == "icl":
        yield from _of_icl(distill)
    if distill.method == "meta_kd":
        yield from _of_meta_kd(distill)


def _of_every_method(distill: Distill) -> Iterator[Rule]:
    method, objective = distill.method, distill.objective
    if distill.prefix == "demonstrations" and method != "none":
        yield "prefix", f"demonstrations with method {method}, which decides itself; expected method none"
    if method not in ("none", "mend") and distill.teacher is None:
        yield "teacher", f"missing; expected one: method {method} needs a teacher"
    if method in ("context", "icl") and objective.lm > 0 and distill.text is None:
        yield "objective.lm", f"{objective.lm:g}; expected plain text in distill.text with it"
    if method == "context" and distill.on_policy != OnPolicy() and not objective.on_policy:
        yield "on_policy", "set, and objective.on_policy is 0; expected more, or no on_policy"
    if distill.student.lora != Lora() and distill.student.adapter != "lora":
        yield "student.lora", f"set, and student.adapter is {distill.student.adapter}; expected lora"


def _not_read(distill: Distill) -> Iterator[Rule]:
    """A key that the method doesn't read must have its default, which a resolved recipe writes out."""
    for key, readers in _READ_BY.items():
        if distill.method not in readers and _changed(distill, key):
            methods = " or ".join(readers)
            yield key, f"method {distill.method} does not read it; expected method {methods} with it"


def _changed(distill: Distill, key: str) -> bool:
    spec: Spec = distill
    *above, name = key.split(".")
    for part in above:
        spec = getattr(spec, part)
    return bool(getattr(spec, name) != type(spec).model_fields[name].get_default(call_default_factory=True))


def _of_mend(distill: Distill) -> Iterator[Rule]:
    if distill.teacher is not None:
        yield (
            "teacher",
            "given; expected none: the teacher of method mend is the student with plain demonstrations",
        )
    if distill.objective != type(distill.objective)():
        yield "objective", "method mend does not read it; its weight of kl is mend.on_tasks.kl"
    if distill.mend is None:
        yield "mend", "missing; expected the section mend, with a hypernetwork"
        return
    if distill.mend.on_text.steps and distill.text is None:
        yield (
            "mend.on_text.steps",
            f"{distill.mend.on_text.steps}; expected plain text in distill.text, or 0",
        )
    seeds = len(distill.demonstrations.seeds)
    if distill.mend.votes > seeds:
        yield "mend.votes", f"{distill.mend.votes}; expected at most the {seeds} demonstrations.seeds"


def _of_icl(distill: Distill) -> Iterator[Rule]:
    icl, teacher = distill.icl, distill.teacher
    if distill.objective.kl == 0:
        yield "objective.kl", "0; expected more: method icl learns from the teacher"
    if icl.paradigm == "meta" and not icl.tasks:
        yield "icl.tasks", "empty; expected the tasks that paradigm meta tunes on"
    if icl.teacher_epochs and teacher is not None and teacher.load_in in ("8bit", "4bit"):
        yield (
            "icl.teacher_epochs",
            f"{icl.teacher_epochs}, and the teacher's load_in is {teacher.load_in}, which isn't trained; "
            "expected fp32 or bf16, or 0",
        )


def _of_meta_kd(distill: Distill) -> Iterator[Rule]:
    objective, teacher = distill.objective, distill.teacher
    if distill.meta_kd is None:
        yield "meta_kd", "missing; expected the section distill.meta_kd, which names the domains"
    if teacher is not None and teacher.load_in != "fp32":
        yield "teacher.load_in", f"{teacher.load_in}; expected fp32: method meta_kd trains its teacher"
    if objective.over != "verbalizers":
        yield "objective.over", f"{objective.over}; expected verbalizers with method meta_kd"
    if objective.lm > 0:
        yield "objective.lm", f"{objective.lm:g}; expected 0 with method meta_kd"
