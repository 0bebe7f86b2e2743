"""The accuracy-size curve as an SVG: what every size would lose, and where the chosen plan lies."""

from __future__ import annotations

import io
from collections.abc import Sequence

from edgeicl.specs.curve import CurvePoint, SizeCurve

_MB = 1e6


def curve_svg(curve: SizeCurve) -> bytes:
    """SVG of `curve`; equal curves give equal bytes."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "edgeicl", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        best = best_by_size(curve.points)
        # Steps, not slopes: between two plans there is nothing but the smaller one.
        axes.plot(
            *_xy(best),
            color="#3b6ea5",
            marker=".",
            linewidth=1.4,
            drawstyle="steps-post",
            label="best plan for each size",
        )
        uniform = [point for point in curve.points if point.kind == "uniform"]
        if uniform:
            axes.plot(
                *_xy(uniform),
                color="#333333",
                marker="s",
                markersize=7,
                markerfacecolor="none",
                linestyle="",
                zorder=4,
                clip_on=False,
                label="one format for all",
            )
        for index, point in enumerate(uniform):
            axes.annotate(
                point.label.removeprefix("uniform "),
                (point.artifact_bytes / _MB, point.predicted_loss),
                textcoords="offset points",
                xytext=(6, 6 if index % 2 else -12),  # neighbours of like size don't overlap
                fontsize=8,
                color="#555555",
            )
        for marker, rule in zip("^vP", (p for p in curve.points if p.kind == "rule"), strict=False):
            axes.plot(*_xy([rule]), color="#4d7c0f", marker=marker, linestyle="", zorder=4, label=rule.label)
        chosen = [point for point in curve.points if point.kind == "chosen"]
        if chosen:
            axes.plot(
                *_xy(chosen),
                color="#c2410c",
                marker="D",
                linestyle="",
                zorder=3,
                clip_on=False,
                label="chosen plan",
            )
        if curve.artifact_budget_bytes is not None:
            axes.axvline(
                curve.artifact_budget_bytes / _MB, color="#c2410c", linestyle=":", label="artifact budget"
            )
        axes.margins(x=0.1)  # room for the labels beside the largest
        axes.set_xlabel("artifact, MB (1 MB = 1,000,000 bytes)")
        axes.set_ylabel("predicted loss (its unit is below)")
        positive = [point.predicted_loss for point in curve.points if point.predicted_loss > 0]
        if positive:
            axes.set_yscale("symlog", linthresh=min(positive))
            if all(point.predicted_loss >= 0 for point in curve.points):
                axes.set_ylim(bottom=0, top=3 * max(positive))
        axes.grid(visible=True, color="#e5e5e5", linewidth=0.6)
        axes.legend(frameon=False, fontsize=8)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def best_by_size(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """By rising size, the plans that lose less than every smaller one, whatever their kind."""
    best: list[CurvePoint] = []
    for point in sorted(points, key=lambda point: (point.artifact_bytes, point.predicted_loss)):
        if not best or point.predicted_loss < best[-1].predicted_loss:
            best.append(point)
    return best


def _xy(points: list[CurvePoint]) -> tuple[list[float], list[float]]:
    return [point.artifact_bytes / _MB for point in points], [point.predicted_loss for point in points]
