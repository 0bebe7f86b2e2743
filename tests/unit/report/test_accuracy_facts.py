"""Groups, ranks and paired tests, in the report and on the terminal."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeicl.distill.evaluate import accuracy_row, paired_test
from edgeicl.report.accuracy_facts import group_facts, p_text, paired_facts, ranking_facts
from edgeicl.report.built_text import built_text
from edgeicl.report.facts import method_facts
from edgeicl.report.stage import report_html, report_markdown
from edgeicl.report.terminal import labelled_text
from edgeicl.specs.measurement import Evaluation, LabelledAccuracy
from tests.unit.samples import CURVE, TARGET, manifest

LABELS = ("yes", "no")
GOLD = np.arange(200) % 2
GOOD = np.where(np.arange(200) % 10 == 0, 1 - GOLD, GOLD)
BAD = np.zeros(200, np.int64)


def evaluated(labels: tuple[str, ...] = LABELS, ranks: list[np.ndarray] | None = None) -> Evaluation:
    groups = ["overlap"] * 100 + ["subsequence"] * 100
    rows = tuple(
        accuracy_row(name, "in_domain", [found], GOLD, labels, groups=groups, ranks=ranks or [])
        for name, found in (("distilled", GOOD), ("zero-shot", BAD))
    )
    test = paired_test("distilled", [GOOD], "zero-shot", [BAD], data="in_domain", gold=GOLD)
    return Evaluation(rows=rows, paired_tests=(test,))


FULL = manifest().model_copy(update={"evaluation": evaluated()})


def test_groups_have_a_row_each_and_a_column_for_each_label() -> None:
    table = group_facts(FULL)
    assert table is not None
    assert table.headers[2:] == ("group", "accuracy", "balanced", "macro-F1", "no", "yes", "examples")
    # Wrong are the texts 0, 10, ... 90 of the first hundred: all of them "yes".
    assert table.rows[0][2:4] == ("overlap", "90.0 %")
    assert table.rows[0][6:] == ("100.0 %", "80.0 %", "100")
    assert len(table.rows) == 4
    assert group_facts(manifest()) is None


def test_differences_between_methods() -> None:
    table = paired_facts(FULL)
    assert table is not None
    # 100 - 20 of 200: +40 points; both signs are counted as single flips, none of 120 is as unlikely.
    assert table.rows[0][0] == "distilled - zero-shot"
    assert table.rows[0][2].startswith("+40.0 [+")
    assert table.rows[0][3] == "< 0.0001"
    assert "not corrected for their number" in table.note
    assert paired_facts(manifest()) is None


def test_p_values_are_short() -> None:
    assert [p_text(value) for value in (1.0, 0.0321, 0.0005, 0.00001)] == ["1", "0.032", "0.0005", "< 0.0001"]


def test_ranks_take_the_place_of_many_labels() -> None:
    many = tuple(f"word {n}" for n in range(30))
    ranks = [np.where(GOLD == 0, 1, 11)]
    table = ranking_facts(manifest().model_copy(update={"evaluation": evaluated(many, ranks)}))
    assert table is not None
    assert table.rows[0][2:] == ("50.0 %", "50.0 %", "54.5 %")
    assert ranking_facts(FULL) is None

    labels = np.arange(200) % 20  # more than the table of methods has columns for
    row = accuracy_row("m", "in_domain", [labels], labels, many)
    wide = method_facts(manifest().model_copy(update={"evaluation": Evaluation(rows=(row,))}))
    assert wide is not None
    assert wide.headers == ("method", "data", "accuracy", "balanced", "macro-F1", "examples")


def test_every_form_of_the_report_tells_them() -> None:
    for text in (report_html(FULL, CURVE), report_markdown(FULL, CURVE)):
        for heading in ("Accuracy by group", "Differences between methods", "macro-F1"):
            assert heading in text
    short = built_text(FULL, target=TARGET, folder=Path("b"))
    assert "macro-F1" in short
    assert "p: paired test of distilled against each" in short
    # An artifact of an earlier version has neither, and its report still stands.
    old = FULL.evaluation.model_dump() if FULL.evaluation else {}
    for row in old["rows"]:
        for key in ("macro_f1", "ranking", "groups"):
            del row[key]
    del old["paired_tests"]
    earlier = manifest().model_copy(update={"evaluation": Evaluation.model_validate(old)})
    assert "Differences between methods" not in report_markdown(earlier, CURVE)


def test_accuracy_of_an_artifact_by_group() -> None:
    part = LabelledAccuracy(
        data="overlap", examples=2, accuracy=0.5, balanced_accuracy=0.5, accuracy_by_label={}
    )
    whole = part.model_copy(update={"data": "file:hans", "macro_f1": 0.25, "by_group": {"overlap": part}})
    text = labelled_text(whole)
    assert text.startswith("file:hans, 2 examples")
    assert "macro-F1    25.0 %" in text
    assert "\n\noverlap, 2 examples" in text
