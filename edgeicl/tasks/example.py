"""One labelled example, as read from a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Example:
    """Texts by column, the label, and where it was read (for messages only).

    `options` are the labels that it may be answered with; none means all. `group` is the value that accuracy
    is broken down by.
    """

    columns: Mapping[str, str]
    label: str
    where: str = field(default="", compare=False)
    options: tuple[str, ...] = ()
    group: str = ""
