"""Writes the report of a build: `report.md`, and `report.html`, which needs no other file."""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgeicl.report import accuracy_facts, facts
from edgeicl.report.bit_map import BitMap, bit_map
from edgeicl.report.curve_facts import curve_facts
from edgeicl.report.curve_plot import curve_svg
from edgeicl.report.facts import Facts
from edgeicl.report.summary import summary_facts
from edgeicl.report.tables import markdown
from edgeicl.specs.curve import SizeCurve
from edgeicl.specs.manifest import Manifest


def write_report(folder: Path, *, manifest: Manifest, curve: SizeCurve) -> None:
    """Writes both files into `folder`. The same arguments give the same bytes."""
    (folder / "report.md").write_text(report_markdown(manifest, curve), encoding="utf-8")
    (folder / "report.html").write_text(report_html(manifest, curve), encoding="utf-8")


def report_markdown(manifest: Manifest, curve: SizeCurve) -> str:
    """The report as Markdown."""
    grid = bit_map(manifest.plan)
    parts = [f"# {_title(manifest)}"]
    for table in _tables(manifest, curve):
        parts += [f"## {table.heading}", markdown(table.headers, table.rows)]
        if table.folded:
            summary = f"<details><summary>{len(table.folded)} more rows</summary>"
            parts += [summary, markdown(table.headers, table.folded), "</details>"]
        parts += [table.note] if table.note else []
        if table.heading == "Size ledger":
            parts += ["## Bits by layer", _grid_markdown(grid)]
    return "\n\n".join(parts) + "\n"


def report_html(manifest: Manifest, curve: SizeCurve) -> str:
    """The report as one page of HTML without any outside reference; all text is escaped."""
    environment = Environment(
        loader=PackageLoader("edgeicl.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    plot = base64.b64encode(curve_svg(curve)).decode("ascii")
    return environment.get_template("report.html").render(
        title=_title(manifest),
        tables=_tables(manifest, curve),
        grid=bit_map(manifest.plan),
        plot=f"data:image/svg+xml;base64,{plot}",
    )


def _title(manifest: Manifest) -> str:
    title = f"{manifest.name} for {manifest.target}"
    return title if manifest.bench is None else f"{title}: speed {manifest.bench.fidelity} here"


def _tables(manifest: Manifest, curve: SizeCurve) -> list[Facts]:
    tables = [
        summary_facts(manifest, curve),
        facts.deviation_facts(manifest.deviations),
        facts.method_facts(manifest),
        accuracy_facts.ranking_facts(manifest),
        accuracy_facts.group_facts(manifest),
        accuracy_facts.paired_facts(manifest),
        facts.artifact_facts(manifest),
        curve_facts(curve, manifest),
        facts.size_facts(manifest),
        facts.parity_facts(manifest),
        None if manifest.bench is None else facts.bench_facts(manifest.bench),
        facts.provenance_facts(manifest),
    ]
    return [table for table in tables if table is not None]


def _grid_markdown(grid: BitMap) -> str:
    rows = [(name, *(str(cell) if cell else "" for cell in cells)) for name, cells in grid.rows]
    lines = [markdown(("layer", *grid.columns), rows)] if rows else []
    lines += [markdown(("group", "format"), [(name, str(cell)) for name, cell in grid.outside])]
    return "\n\n".join(lines)
