"""Templates of LAMA, `[X] was born in [Y] .`: [X] is the column `sub`, [Y] the answer.

Source: Petroni et al., 2019 (arXiv 1909.01066), and the template files of its repository.
"""

from __future__ import annotations

SUBJECT, OBJECT = "[X]", "[Y]"
SUBJECT_COLUMN = "sub"


def is_template(pattern: str) -> bool:
    """Whether `pattern` has both slots."""
    return SUBJECT in pattern and OBJECT in pattern


def around_answer(template: str) -> tuple[str, str]:
    """A pattern of what stands before the answer, and the text that follows it in demonstrations.

    Raises:
        ValueError: [X] doesn't stand before [Y], and a model that reads from left to right can't answer.
    """
    before, _, after = template.partition(OBJECT)
    if SUBJECT not in before:
        raise ValueError(f"{template!r} has its answer before its subject; expected [X] before [Y]")
    return before.rstrip().replace(SUBJECT, f"{{{SUBJECT_COLUMN}}}"), after.rstrip()
