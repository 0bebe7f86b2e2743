"""From files as LM-BFF and MetaICL write them to a checked artifact, and what the build tells of them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from edgeicl.specs.manifest import Manifest
from edgeicl.specs.source import Source
from edgeicl.tasks.example import Example
from edgeicl.tasks.readers import read_examples
from tests.e2e.small_build import Program

SEEDS = (13, 21)
RECIPE = """
version: 1
name: few-shot
task:
  pattern: "{premise} so {hypothesis}?"
  label_pattern: " {label}"
  separator: "\\n"
  scoring: channel
  channel_pattern: " {premise} so {hypothesis}?"
  train: {source: "file:pool.jsonl", label: output}
  in_domain: {source: "file:test.csv", columns: [label, premise, hypothesis]}
  out_of_domain: {source: "file:other.tsv", rename: {kind: phenomenon}, breakdown: phenomenon}
distill:
  method: context
  teacher: {model: "builtin:nli-teacher"}
  student: {model: "builtin:nli-student"}
  demonstrations:
    count: 4
    seeds: [13, 21]
    source: {source: "file:4-{seed}/train.csv", columns: [label, premise, hypothesis]}
  transfer_examples: 96
  training: {epochs: 1, learning_rate: 1.0e-3}
  baseline_epochs: 1
  require_gain: false
quantize: {calibration_examples: 4}
limits: {accuracy_drop_points: 30, accuracy_examples: 40}
targets: [tiny-cpu]
"""


def rows(split: str, count: int, seed: int = 0) -> list[Example]:
    source = Source(source="builtin:nli/action", split=split, limit=count, seed=seed)
    return read_examples(source, labels=("entailment", "contradiction"), base_folder=Path())


def answer(example: Example) -> str:
    return "Yes" if example.label == "entailment" else "No"


def write_csv(path: Path, examples: list[Example]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([answer(one), one.columns["premise"], one.columns["hypothesis"]] for one in examples)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, a pool as MetaICL writes it, splits without a header, a test set of other columns."""
    folder = tmp_path_factory.mktemp("few-shot")
    (folder / "recipe.yaml").write_text(RECIPE)
    pool = [
        {"task": "action", "output": answer(one), "options": ["Yes", "No"], **one.columns}
        for one in rows("train", 200)
    ]
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pool))
    write_csv(folder / "test.csv", rows("test", 60))
    for seed in SEEDS:
        write_csv(folder / f"4-{seed}" / "train.csv", rows("validation", 12, seed))
    lines = ["premise\thypothesis\tkind\tlabel"]
    lines += [
        "\t".join([*(one.columns[name] for name in ("premise", "hypothesis", "phenomenon")), answer(one)])
        for one in rows("out_of_domain", 60)
    ]
    (folder / "other.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_from_files_to_an_artifact(folder: Path, program: Program, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    done = program.run("compile", str(folder / "recipe.yaml"), "-o", str(output), "--no-bench")
    assert done.returncode == 0, done.stderr
    manifest = Manifest.model_validate_json((output / "edgeicl.json").read_bytes())
    assert manifest.evaluation is not None
    rows = {(row.method, row.data): row for row in manifest.evaluation.rows}
    assert len(rows) == 12
    assert all(row.macro_f1 is not None for row in rows.values())
    out = rows["context distillation", "out_of_domain"]
    assert sum(group.examples for group in out.groups) == 60
    assert {group.group for group in out.groups} == {
        line.split("\t")[2] for line in (folder / "other.tsv").read_text().splitlines()[1:]
    }
    tests = manifest.evaluation.paired_tests
    assert {test.method for test in tests} == {"context distillation"}
    assert len(tests) == 10
    assert [deviation.what for deviation in manifest.deviations if deviation.got == "direct"] == ["scoring"]
    task = json.loads((output / "task.json").read_text())
    assert (task["verbalizers"], task["score"]) == ({"No": " No", "Yes": " Yes"}, "sum")
    report = (output / "report.md").read_text()
    for heading in ("## Accuracy by group", "## Differences between methods"):
        assert heading in report

    # The recipe beside the artifact says where each seed's demonstrations lie, and every label word.
    resolved = (output / "recipe.resolved.yaml").read_text()
    assert f"file:{folder.resolve()}/4-{{seed}}/train.csv" in resolved
    assert "Yes: ' Yes'" in resolved
    checked = program.run("check", str(output / "recipe.resolved.yaml"))
    assert checked.returncode == 0, checked.stderr

    columns = ("--columns", "label,premise,hypothesis")
    eval_run = program.run("eval", str(output), "--data", f"file:{folder}/test.csv", *columns, "--json")
    assert eval_run.returncode == 0, eval_run.stderr
    measured = json.loads(eval_run.stdout)
    assert measured["examples"] == 60
    assert 0 <= measured["macro_f1"] <= 1
    grouped = program.run("eval", str(output), "--data", f"file:{folder}/other.tsv", "--breakdown", "kind")
    assert grouped.returncode == 0, grouped.stderr
    assert "macro-F1" in grouped.stdout
    assert out.groups[0].group in grouped.stdout


def test_rows_of_a_file_without_a_header(folder: Path, program: Program) -> None:
    given = ("--columns", "label,a,b", "--rename", "a=premise", "--where", "label=Yes", "--limit", "2")
    done = program.run("data", f"file:{folder}/test.csv", *given)
    assert done.returncode == 0, done.stderr
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(row) for row in shown] == [["label", "premise", "b"]] * 2
    assert {row["label"] for row in shown} == {"Yes"}


def test_a_demonstration_of_the_evaluation_is_refused(folder: Path, program: Program, tmp_path: Path) -> None:
    leaking = shutil.copytree(folder, tmp_path / "leaking")
    first = (leaking / "test.csv").read_text().splitlines()[0]
    with (leaking / "4-21" / "train.csv").open("a") as split:
        split.write(first.upper().replace("YES", "Yes").replace("NO", "No", 1) + "\n")
    done = program.run("compile", str(leaking / "recipe.yaml"), "-o", str(tmp_path / "artifact"), "--no-bench")
    assert done.returncode == 7
    assert "distill.demonstrations.source, seed 21: 1 of " in done.stderr
    assert "distill.leakage: drop" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_split_that_is_missing_is_a_problem_of_the_recipe(folder: Path, program: Program) -> None:
    done = program.run("check", str(folder / "recipe.yaml"), "--set", "distill.demonstrations.seeds=[13, 99]")
    assert done.returncode == 2
    assert "distill.demonstrations.source" in done.stderr
    assert "4-99/train.csv; expected a data file" in done.stderr
