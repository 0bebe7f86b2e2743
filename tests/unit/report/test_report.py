"""The report: every table, self-contained, escaped, and the same bytes for the same build."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgeicl.report.accuracy_facts import gain_text, one_answer_text
from edgeicl.report.bit_map import bit_map
from edgeicl.report.built_text import built_text
from edgeicl.report.curve_facts import curve_facts
from edgeicl.report.curve_plot import best_by_size, curve_svg
from edgeicl.report.facts import (
    artifact_bytes,
    method_facts,
    query_cost_text,
    size_facts,
    unquantized_text,
    with_interval,
)
from edgeicl.report.stage import report_html, report_markdown, write_report
from edgeicl.report.summary import summary_facts
from edgeicl.report.tables import aligned, markdown
from edgeicl.report.terminal import artifact_text, bench_text, targets_text
from edgeicl.specs.catalog import load_target, shipped
from edgeicl.specs.measurement import AccuracyRow, Evaluation, PairedTest, QueryCost
from edgeicl.specs.quant_plan import Format
from edgeicl.specs.recovery import Judged, Recovery
from edgeicl.specs.target import Budget
from tests.unit.samples import (
    CURVE,
    DEVIATION,
    INT4,
    PLAN,
    TARGET,
    bench_result,
    estimate,
    evaluation,
    manifest,
)

FULL = manifest(deviations=(DEVIATION,), bench=bench_result())
HEADINGS = [
    "In short",
    "Deviations",
    "Accuracy of the methods",
    "Accuracy of the artifact",
    "Size and loss",
    "Size ledger",
    "Bits by layer",
    "Parity",
    "Benchmark",
    "Provenance",
]


def test_the_ledger_is_added_up_by_group() -> None:
    rows = {row[0]: row[2] for row in size_facts(FULL).rows}
    assert rows == {"layers.0.attention.qkv": "400", "embedding": "500", "model.onnx": "100", "all": "1,000"}
    assert artifact_bytes(FULL) == 1000


def test_the_summary_compares_with_the_budget() -> None:
    rows = dict(summary_facts(FULL, CURVE).rows)
    assert rows["artifact"] == "1,000 of 1,250 bytes (80.0 %)"
    assert rows["deviations from what was asked"] == "1"
    gain = "+31.5 points [+28.0, +35.0] of balanced accuracy on transfer examples"
    assert rows["teacher's gain from demonstrations"] == gain


def test_a_measurement_is_shown_with_what_must_be_known_of_it() -> None:
    noisy = bench_result().model_copy(update={"notes": ("noisy: something else was running",)})
    built = manifest(bench=noisy)
    assert ("note on these speeds", "noisy: something else was running") in summary_facts(built, CURVE).rows
    lines = built_text(built, target=TARGET, folder=Path("b")).splitlines()
    (speed,) = (number for number, line in enumerate(lines) if line.startswith("decode, measured:"))
    assert lines[speed + 1].split(maxsplit=1) == ["note:", "noisy: something else was running"]


def test_predicted_times_stand_beside_their_limits() -> None:
    timed = {"predicted_decode_ms": 2.714, "predicted_first_token_ms": 18.06}
    built = FULL.model_copy(update={"plan": PLAN.model_copy(update=timed)})
    limited = TARGET.model_copy(update={"budget": Budget(decode_ms=2.9)})
    said = built_text(built, target=limited, folder=Path("b"))
    assert "on the target, predicted:           a token 2.71 of 2.9 ms, a prompt 18.1 ms\n" in said
    assert "on the target" not in built_text(FULL, target=limited, folder=Path("b"))


def test_where_nothing_was_quantized_it_is_said() -> None:
    said = "no weights were quantized: all fit the target in fp32"
    floats = [group.model_copy(update={"format": Format(bits=32)}) for group in PLAN.groups]
    whole = FULL.model_copy(update={"plan": PLAN.model_copy(update={"groups": tuple(floats)})})
    assert ("weights", said) in summary_facts(whole, CURVE).rows
    assert said in built_text(whole, target=TARGET, folder=Path("b"))
    assert "no weights were quantized" not in report_markdown(FULL, CURVE)
    rounded = whole.plan.model_copy(update={"cache_bits": 8})
    assert unquantized_text(rounded) == f"{said}; keys and values are kept in 8-bit integers"


def test_the_best_plans_for_other_sizes_are_folded() -> None:
    table = curve_facts(CURVE, FULL)
    assert [row[0] for row in table.rows] == ["uniform int4/block32", "LSAQ", "chosen"]
    assert [row[0] for row in table.folded] == ["best of 850 bytes", "best of 1300 bytes"]
    assert "Bytes are predicted, an upper bound: the artifact takes 1,000." in table.note
    for text in (report_html(FULL, CURVE), report_markdown(FULL, CURVE)):
        shown, folded = text.split("<details><summary>2 more rows</summary>")
        assert "best of 850 bytes" not in shown
        assert "best of 850 bytes" in folded.split("</details>")[0]


def test_refinement_is_told_with_the_loss_before_and_after() -> None:
    assert "efinement" not in curve_facts(CURVE, FULL).note
    better = curve_facts(CURVE.model_copy(update={"refinement": (0.02, 0.015, 0.0125)}), FULL)
    assert better.note.endswith("Refinement took the measured KL from 0.02 to 0.0125 nats.")
    same = curve_facts(CURVE.model_copy(update={"refinement": (0.02,)}), FULL)
    assert same.note.endswith("Refinement found no plan of less measured KL than the allocated one.")


def test_what_a_query_costs_is_told_in_shares() -> None:
    cost = QueryCost(
        query_tokens=13,
        demonstrations=16,
        demonstration_tokens=248,
        prefix_tokens=8,
        plain_flops=644_000_000,
        prefix_flops=28_000_000,
    )
    assert cost.saved_share == pytest.approx(616 / 644)
    text = query_cost_text(cost)
    assert "644.0 million floating-point operations behind 16 plain demonstrations (248 tokens)" in text
    assert text.endswith("and 28.0 million behind 8 positions computed once: 95.7 % fewer.")


def test_a_gain_of_one_seed_has_no_interval() -> None:
    one = Evaluation(gain_points=estimate(5).model_copy(update={"values": (5.0,)}), rows=())
    assert gain_text(one).startswith("+5.0 points of balanced")
    assert gain_text(one.model_copy(update={"gain_certain": False})).endswith("(distill.require_gain: false)")


def test_a_student_that_gives_one_answer_is_told() -> None:
    row = evaluation().rows[1]
    shares = {"entailment": estimate(1.0), "contradiction": estimate(0.0)}
    test = PairedTest(
        method=row.method,
        baseline="zero-shot",
        data="in_domain",
        points=0,
        low=0,
        high=0,
        p_value=1,
        examples=9,
    )
    told = Evaluation(rows=(row.model_copy(update={"accuracy_by_label": shares}),), paired_tests=(test,))
    assert one_answer_text(told) == "'entailment' to everything in-domain"
    assert one_answer_text(told.model_copy(update={"rows": (row,)})) is None


def test_an_interval_is_shown_only_where_there_are_several_values() -> None:
    assert with_interval(estimate(0.9)) == "90.0 % [89.0, 91.0]"
    assert with_interval(estimate(0.9).model_copy(update={"values": (0.9,)})) == "90.0 %"


def test_methods_have_a_column_for_each_label() -> None:
    table = method_facts(FULL)
    assert table is not None
    assert table.headers == (
        "method",
        "data",
        "accuracy",
        "balanced",
        "macro-F1",
        "contradiction",
        "entailment",
        "examples",
    )
    assert table.rows[1][5:7] == ("88.0 % [87.0, 89.0]", "92.0 % [91.0, 93.0]")
    assert method_facts(FULL.model_copy(update={"evaluation": None})) is None


def test_the_confidence_is_that_of_a_row_with_an_interval() -> None:
    """A method that reads no demonstrations comes first, with one value and the confidence 0."""
    single = estimate(0.5).model_copy(update={"values": (0.5,), "confidence": 0.0})
    rows = evaluation().rows
    first = rows[0].model_copy(update={"accuracy": single})

    def note(*shown: AccuracyRow) -> str:
        found = evaluation().model_copy(update={"rows": shown})
        table = method_facts(FULL.model_copy(update={"evaluation": found}))
        assert table is not None
        return table.note

    assert note(first, rows[1]).startswith("Means over up to 2 demonstration seeds, with 95 % intervals.")
    assert note(first) == "The student of seed 3 is the one that was compiled."


def test_the_bit_map_has_a_row_per_layer_and_keeps_the_rest_apart() -> None:
    grid = bit_map(PLAN)
    assert grid.columns == ("attention.qkv", "mlp.up")
    assert [name for name, _ in grid.rows] == ["layer 0", "layer 1"]
    assert [[cell.bits if cell else None for cell in cells] for _, cells in grid.rows] == [[4, 8], [8, 16]]
    assert grid.outside == (("embedding", INT4),)


def test_layers_are_sorted_by_number() -> None:
    group = PLAN.groups[0]
    many = PLAN.model_copy(
        update={"groups": tuple(group.model_copy(update={"group": f"layers.{i}.mlp.up"}) for i in (10, 9, 2))}
    )
    assert [name for name, _ in bit_map(many).rows] == ["layer 2", "layer 9", "layer 10"]


def test_both_reports_hold_every_section() -> None:
    text, page = report_markdown(FULL, CURVE), report_html(FULL, CURVE)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    assert re.findall(r"<h2>(.*?)</h2>", page) == HEADINGS


def test_without_measurement_or_deviation_those_sections_are_absent() -> None:
    text = report_markdown(manifest(), CURVE)
    assert "## Benchmark" not in text
    assert "## Deviations" not in text
    assert "measured here" not in text.splitlines()[0]
    assert report_markdown(FULL, CURVE).splitlines()[0].endswith("speed measured here")


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith("data:")]
        self.outside += [tag] if tag in ("script", "link", "iframe") else []


def test_the_page_needs_no_other_file_and_escapes_what_it_shows() -> None:
    page = report_html(FULL, CURVE)
    references = _References()
    references.feed(page)
    assert references.outside == []
    assert "<b>a processor</b>" not in page
    assert "&lt;b&gt;a processor&lt;/b&gt;" in page


def test_equal_builds_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_report(tmp_path / name, manifest=FULL, curve=CURVE)
    for name in ("report.md", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_plot_shows_the_curve_it_is_given() -> None:
    svg = curve_svg(CURVE)
    assert b"chosen plan" in svg
    assert b"LSAQ" in svg
    assert b"artifact budget" in svg
    moved = CURVE.model_copy(update={"artifact_budget_bytes": None})
    assert b"artifact budget" not in curve_svg(moved)
    assert curve_svg(CURVE.model_copy(update={"points": ()}))


def test_the_solver_and_what_recovery_gave_are_told_first() -> None:
    judged = (Judged(step=0, kl_to_student=0.2), Judged(step=30, kl_to_student=0.05))
    recovered = FULL.model_copy(
        update={"recovery": Recovery(sequences=8, held_out=2, judged=judged, best_step=30), "solver": "gptq"}
    )
    told = "GPTQ, then trained for 30 steps: KL to the unquantized student from 0.2 to 0.05 nats"
    assert told in dict(summary_facts(recovered, CURVE).rows)["weights"]
    assert told in artifact_text(recovered)
    assert dict(summary_facts(FULL, CURVE).rows)["weights"] == "rounded to nearest"
    useless = recovered.model_copy(
        update={"recovery": Recovery(sequences=8, held_out=2, judged=judged, best_step=0)}
    )
    assert useless.rounding == "GPTQ"


def test_plans_by_another_rule_are_told_as_such() -> None:
    told = "By another rule within the same limits, rounded alike: LSAQ."
    assert told in report_markdown(FULL, CURVE)
    none = CURVE.model_copy(update={"points": tuple(p for p in CURVE.points if p.kind != "rule")})
    assert told not in report_markdown(FULL, none)


def test_no_plan_lies_below_the_curve_and_single_formats_lie_above_what_they_cover() -> None:
    small, best, _, chosen, large = CURVE.points
    worse = small.model_copy(update={"artifact_bytes": 900, "predicted_loss": 0.35})
    assert best_by_size([large, worse, chosen, best, small]) == [small, best, chosen, large]


def test_tables_align_and_escape() -> None:
    assert aligned(("a", "n"), [("x", "1"), ("yy", "10")]) == "a    n\n--  --\nx    1\nyy  10"
    assert markdown(("a",), [("x|y\nz",)]) == "| a |\n| --- |\n| x\\|y z |"
    with pytest.raises(ValueError, match="zip"):
        aligned(("a",), [("x", "y")])


def test_the_terminal_says_what_was_built_and_where() -> None:
    text = built_text(FULL, target=TARGET, folder=Path("build/sample/tiny"))
    assert "artifact 1.0 kB of 2.0 kB" in text
    assert "89.6 % (student 90.0 %)" in text
    assert text.splitlines()[-1].split() == ["report:", "build/sample/tiny/report.html"]
    assert "50.0 % reached" in bench_text(bench_result())
    assert "layers.1.mlp.up         fp16" in artifact_text(FULL)


def test_the_table_of_targets_fits_a_terminal() -> None:
    text = targets_text({name: load_target(str(path)) for name, path in shipped("targets").items()})
    assert max(map(len, text.splitlines())) < 100
    assert "int4 int8 fp32" in text
