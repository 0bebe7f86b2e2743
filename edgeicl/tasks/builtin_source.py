"""`builtin:nli` and `builtin:nli/TASK` as rows: columns premise, hypothesis, phenomenon and the label.

Splits: `train`, `validation` and `test` are in-domain; `out_of_domain` holds the out-of-domain phenomena on
test texts, `out_of_domain_train` the same phenomena on training texts. No text is in two of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from edgeicl.errors import DataError
from edgeicl.tasks import nli_family
from edgeicl.tasks.example import nearest

Row = tuple[str, Mapping[str, Any]]

DEFAULT_TASK = "entailment"
DEFAULT_ROWS = 2000

_DOMAIN_AND_SPLIT = {
    **{split: ("in_domain", split) for split in nli_family.SPLITS},
    "out_of_domain": ("out_of_domain", "test"),
    "out_of_domain_train": ("out_of_domain", "train"),
}


def builtin_rows(name: str, *, split: str, label: str, limit: int | None, seed: int) -> Iterator[Row]:
    """`limit` rows (2,000 unless told) of the family's task, always the same for the same `seed`.

    Labels are `entailment` where the task's answer is "Yes", else `contradiction`.
    """
    family, _, task = name.partition("/")
    task = task or DEFAULT_TASK
    if family != "nli":
        raise DataError(
            f"builtin:{name}: found no built-in source '{family}'; expected nli{nearest(family, ['nli'])}"
        )
    if task not in nli_family.TASKS:
        raise DataError(
            f"builtin:{name}: found no task '{task}'; "
            f"expected one of {', '.join(nli_family.TASKS)}{nearest(task, nli_family.TASKS)}"
        )
    if split not in _DOMAIN_AND_SPLIT:
        raise DataError(
            f"builtin:{name}: found no split '{split}'; "
            f"expected one of {', '.join(_DOMAIN_AND_SPLIT)}{nearest(split, _DOMAIN_AND_SPLIT)}"
        )
    domain, hashed_split = _DOMAIN_AND_SPLIT[split]
    answer = nli_family.TASKS[task]
    drawn = islice(nli_family.pairs(domain, hashed_split, seed), limit or DEFAULT_ROWS)
    for number, pair in enumerate(drawn, start=1):
        yield (
            f"builtin:{name} {split} row {number}",
            {
                "premise": pair.premise,
                "hypothesis": pair.hypothesis,
                "phenomenon": pair.phenomenon,
                label: nli_family.YES if answer(pair) else nli_family.NO,
            },
        )
