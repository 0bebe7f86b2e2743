"""`builtin:nli` and `builtin:nli/TASK` as rows: columns premise, hypothesis, phenomenon and the label.

Splits: `train`, `validation` and `test` are in-domain; `out_of_domain` holds the out-of-domain phenomena on
test texts, `out_of_domain_train` the same phenomena on training texts. No text is in two of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from edgeicl.errors import DataError
from edgeicl.specs.nearest import one_of
from edgeicl.tasks import nli_family

Row = tuple[str, Mapping[str, Any]]

DEFAULT_TASK = "entailment"
DEFAULT_ROWS = 2000


def builtin_rows(
    name: str,
    *,
    split: str,
    label: str,
    dropped: Collection[str],
    where: Mapping[str, str] = MappingProxyType({}),
    limit: int | None,
    seed: int,
) -> Iterator[Row]:
    """`limit` rows (2,000 unless told) of the family's task, always the same for the same `seed`.

    Labels are `entailment` where the task's answer is "Yes", else `contradiction`; rows whose label is
    `dropped` don't count, nor those whose columns hold other texts than `where`.

    Raises:
        DataError: a split that holds fewer rows than `limit`.
    """
    task = name.partition("/")[2] or DEFAULT_TASK
    if {nli_family.YES, nli_family.NO} <= set(dropped):
        return
    domain, hashed_split = nli_family.DOMAIN_AND_SPLIT[split]
    answer = nli_family.TASKS[task]
    asked = where.get("phenomenon")
    if asked is not None and asked not in nli_family.DOMAINS[domain]:
        raise DataError(
            f"builtin:{name}: found no phenomenon '{asked}' in split '{split}'; "
            f"{one_of(asked, nli_family.DOMAINS[domain])}"
        )
    wanted, found = limit or DEFAULT_ROWS, 0
    for number, pair in enumerate(nli_family.pairs(domain, hashed_split, seed), start=1):
        named = nli_family.YES if answer(pair) else nli_family.NO
        row = {
            "premise": pair.premise,
            "hypothesis": pair.hypothesis,
            "phenomenon": pair.phenomenon,
            label: named,
        }
        if named in dropped or any(row.get(column, text) != text for column, text in where.items()):
            continue
        found += 1
        yield f"builtin:{name} {split} row {number}", row
        if found == wanted:
            return
    raise DataError(
        f"builtin:{name}: found about {found:,} rows in split '{split}'; expected {wanted:,}, the `limit`",
        next_step=f"lower `limit` to {found} or less, or use another split",
    )
