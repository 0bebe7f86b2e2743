"""Which training example belongs to which domain."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeicl.errors import DataError
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.nearest import one_of
from edgeicl.tasks.example import Example
from edgeicl.tasks.examples_digest import examples_digest
from edgeicl.tasks.leakage import Leakage, by_query, fewer_examples, unevaluated


@dataclass(frozen=True)
class DomainData:
    """Training examples of all domains; domain 0 is the student's, and its `own` examples come first."""

    names: tuple[str, ...]
    examples: list[Example]
    domains: NDArray[np.int64]
    """Index into `names` of each example, [N]."""
    deviations: tuple[Deviation, ...]

    @property
    def own(self) -> int:
        """How many examples are of the student's domain."""
        return int((self.domains == 0).sum())

    @property
    def digest(self) -> str:
        """Changes with any text, label, place or domain."""
        parts = zip(self.domains, self.examples, strict=True)
        return examples_digest((f"{place} {domain}", [one]) for place, (domain, one) in enumerate(parts))


def by_column(train: Sequence[Example], column: str, domain: str) -> dict[str, list[Example]]:
    """The examples of each domain that `column` names, those of `domain` first.

    Raises:
        DataError: no such column, no example of `domain`, or none of another.
    """
    found: dict[str, list[Example]] = {}
    for example in train:
        if column not in example.columns:
            raise DataError(
                f"{example.where or 'task.train'}: found no column '{column}'; "
                f"{one_of(column, example.columns)}",
                next_step="name the column that tells the domain in distill.meta_kd.domain_column",
            )
        found.setdefault(example.columns[column], []).append(example)
    if domain not in found:
        raise DataError(
            f"task.train: found no example of the domain '{domain}' in column '{column}'; "
            f"{one_of(domain, found)}",
            next_step="name one of them in distill.meta_kd.domain",
        )
    if len(found) == 1:
        raise DataError(
            f"task.train: found no other domain than '{domain}' in column '{column}'; expected at least two",
            next_step="give data of more domains: a meta-teacher learns what they share",
        )
    return {domain: found.pop(domain), **dict(sorted(found.items()))}


def check_evaluated_domain(examples: Sequence[Example], column: str, domain: str) -> None:
    """DataError where evaluation data holds other domains than the one the student is for."""
    others = sorted({one.columns[column] for one in examples if column in one.columns} - {domain})
    if others:
        raise DataError(
            f"task.in_domain: found the domains {', '.join(others)}; expected '{domain}' alone, which the "
            "student is for",
            next_step=f"add `where: {{{column}: {domain}}}` to task.in_domain",
        )


def deal_domains(
    by_domain: Mapping[str, Sequence[Example]],
    evaluation: Sequence[Example],
    *,
    pattern: str,
    own_examples: int | None,
    seed: int,
    leakage: Leakage = "refuse",
) -> DomainData:
    """All examples that aren't evaluated; repeated texts count once, for the first domain that has them.

    The first of `by_domain` is the student's domain: at most `own_examples` of it, drawn with `seed`.

    Raises:
        DataError: a domain without a usable example, or leakage.
    """
    evaluated = by_query(pattern, evaluation)
    taken: set[str] = set()
    deviations: list[Deviation] = []
    kept: dict[str, list[Example]] = {}
    for name, examples in by_domain.items():
        where = f"domain {name}"
        clean, dropped = unevaluated(by_query(pattern, examples), evaluated, leakage=leakage, where=where)
        usable = {text: example for text, example in clean.items() if text not in taken}
        deviations += dropped
        if len(usable) < len(clean):
            why = f"{len(clean) - len(usable)} texts are in another domain too"
            deviations.append(fewer_examples(where, clean, usable, why))
        if not usable:
            raise DataError(
                f"{where}: found no example that isn't in the evaluation data or another domain too; expected "
                "some",
                next_step="give it data of its own, or leave the domain out",
            )
        taken |= clean.keys()
        kept[name] = list(usable.values())
    own = next(iter(kept))
    if own_examples is not None:
        if own_examples > len(kept[own]):
            deviations.append(
                Deviation(
                    what="training examples",
                    where="distill.meta_kd.domain_examples",
                    asked=str(own_examples),
                    got=str(len(kept[own])),
                    why=f"domain {own} has no more usable examples",
                )
            )
        else:
            kept[own] = random.Random(f"domain examples/{seed}").sample(kept[own], own_examples)
    return DomainData(
        names=tuple(kept),
        examples=[example for examples in kept.values() for example in examples],
        domains=np.repeat(np.arange(len(kept)), [len(examples) for examples in kept.values()]),
        deviations=tuple(deviations),
    )
