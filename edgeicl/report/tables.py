"""Tables as text: aligned columns for a terminal, Markdown for files."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence[str]


def aligned(headers: Row, rows: Sequence[Row]) -> str:
    """Columns padded to equal width, figures to the right; one line a row, the same on any terminal."""
    table = [list(headers), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headers))]
    to_the_right = [_all_figures([row[column] for row in rows]) for column in range(len(headers))]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, to_the_right, strict=True)
        ).rstrip()
        for row in table
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def markdown(headers: Row, rows: Sequence[Row]) -> str:
    """A Markdown table; pipes in cells are escaped."""
    to_the_right = [_all_figures([row[column] for row in rows]) for column in range(len(headers))]
    rules = ["---:" if right else "---" for right in to_the_right]
    return "\n".join(_markdown_row(row) for row in (headers, rules, *rows))


def _markdown_row(row: Row) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"


def _all_figures(cells: Sequence[str]) -> bool:
    return bool(cells) and all(not cell or cell[0].isdigit() or cell[0] in "+-<" for cell in cells)
