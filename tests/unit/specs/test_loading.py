"""Every mistake in a file is told at once, with its line, what is allowed and what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeicl.errors import SpecError
from edgeicl.specs.loading import dump_yaml, load_spec, parse_spec
from edgeicl.specs.quant_plan import Format, GroupPlan, QuantPlan
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.source import Source
from edgeicl.specs.target import Target

GOOD = """\
version: 1
name: good
task:
  pattern: "{premise} question: {hypothesis} answer:"
  verbalizers: {entailment: " Yes", contradiction: " No"}
  train: {source: "builtin:nli/entailment", split: train}
  in_domain: {source: "builtin:nli/entailment", split: test}
distill:
  teacher: {model: "builtin:nli-teacher"}
  student: {model: "builtin:nli-student"}
  demonstrations:
    count: 16
    seeds: [0, 1]
  objective: {kl: 1.0}
targets: [tiny-cpu]
"""


def problems_of(text: str, *overrides: str) -> dict[str, tuple[int | None, str, str]]:
    """Key -> line, found, expected, of every problem that `text` has."""
    with pytest.raises(SpecError) as caught:
        parse_spec(text, Recipe, source="r.yaml", overrides=overrides)
    return {p.key: (p.line, p.found, p.expected) for p in caught.value.problems}


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_a_good_recipe_gets_its_defaults() -> None:
    recipe = parse_spec(GOOD, Recipe, source="r.yaml")
    assert recipe.distill.demonstrations.count == 16
    assert recipe.distill.transfer_examples == 4096
    assert recipe.targets == ("tiny-cpu",)


def test_five_mistakes_are_five_problems_with_their_lines() -> None:
    text = (
        GOOD.replace("    count: 16\n", "    cuont: 16\n")  # unknown key, line 12
        .replace("kl: 1.0", "kl: high")  # wrong type, line 14
        .replace("name: good", 'name: "no good"')  # bad text, line 2
        .replace('{model: "builtin:nli-student"}', "{adapter: lorra}")  # missing and bad choice, line 10
    )
    found = problems_of(text)
    assert found["distill.demonstrations.cuont"][:2] == (12, "unknown key")
    assert "did you mean 'count'?" in found["distill.demonstrations.cuont"][2]
    assert found["distill.objective.kl"] == (14, "'high'", "expected a number")
    assert found["name"][:2] == (2, "'no good'")
    assert found["distill.student.model"][:2] == (10, "missing")
    assert found["distill.student.adapter"] == (
        10,
        "'lorra'",
        "did you mean 'lora'? allowed: none, lora, bitfit",
    )
    assert len(found) == 5


@pytest.mark.parametrize(
    ("old", "new", "key", "line", "said"),
    [
        ("version: 1", "version: 2", "version", 1, "allowed: 1"),
        ("count: 16", "count: 0", "distill.demonstrations.count", 12, "at least 1"),
        ("count: 16", "count: '16'", "distill.demonstrations.count", 12, "whole number"),
        ("count: 16", "count: true", "distill.demonstrations.count", 12, "whole number"),
        ("count: 16", "count: 1.5", "distill.demonstrations.count", 12, "whole number"),
        ("count: 16", "count: 16\n    count: 8", "distill.demonstrations.count", 13, "each key once"),
        ("count: 16", "count: 16\n    balanced: 'yes'", "distill.demonstrations.balanced", 13, "true or false"),
        ("seeds: [0, 1]", "seeds: [1, 1]", "distill.demonstrations.seeds", 13, "distinct"),
        ("seeds: [0, 1]", "seeds: []", "distill.demonstrations.seeds", 13, "at least 1"),
        ("seeds: [0, 1]", "seeds: [0, one]", "distill.demonstrations.seeds.1", 13, "whole number"),
        ("{kl: 1.0}", "{kl: 0}", "distill.objective", 14, "at least one above 0"),
        ("{kl: 1.0}", "{kl: .inf}", "distill.objective.kl", 14, "number"),
        ("{kl: 1.0}", "{over: verbalisers}", "distill.objective.over", 14, "did you mean 'verbalizers'?"),
        ("targets: [tiny-cpu]", "targets: tiny-cpu", "targets", 15, "a list"),
        ("targets: [tiny-cpu]", "demonstrations: {}", "demonstrations", 15, "distill.demonstrations?"),
        ("targets: [tiny-cpu]", "target: []", "target", 15, "did you mean 'targets'?"),
        ('" No"', '" Yes"', "task.verbalizers", 5, "distinct"),
        ('" No"', "no", "task.verbalizers.contradiction", 5, ""),
        ("{premise}", "{}", "task.pattern", 4, "a column's plain name"),
        ("{hypothesis}", "{hypothesis", "task.pattern", 4, "{{ and }} for braces"),
        ("{premise} question: {hypothesis}", "{{premise}}", "task.pattern", 4, "such as {premise}"),
        ("split: train", "split: train, map_labels: {x: entailmnt}", "task.train", 6, "mean 'entailment'?"),
        (", split: train", "", "task.train.split", 6, "the split of `builtin:` to read"),
        ('builtin:nli/entailment", split: train', 'file:a", split: x', "task.train.split", 6, "no splits"),
    ],
)
def test_each_mistake_is_placed_and_explained(old: str, new: str, key: str, line: int, said: str) -> None:
    text = changed(old, new)
    if said == "":  # negative control: YAML 1.2 reads a bare `no` as text, which is allowed
        assert parse_spec(text, Recipe, source="r.yaml").task.verbalizers["contradiction"] == "no"
        return
    found = problems_of(text)
    assert list(found) == [key]
    assert found[key][0] == line
    assert said in found[key][2]


def test_a_section_is_checked_as_a_whole_even_with_an_unknown_key_or_bad_number_in_it() -> None:
    found = problems_of(changed("{kl: 1.0}", "{kl: 0, temprature: 2, temperature: -1}"))
    assert set(found) == {
        "distill.objective.temprature",
        "distill.objective.temperature",
        "distill.objective",
    }


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: [1,\nb: 2\n", 2, "expected"),
        ("a: 1\n\tb: 2\n", 2, "cannot start any token"),
        ("", 1, "empty"),
        ("a: 1\n---\nb: 2\n", 2, "document"),
    ],
)
def test_what_is_no_yaml_names_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(SpecError, match=said) as caught:
        parse_spec(text, Recipe, source="r.yaml")
    (problem,) = caught.value.problems
    assert "r.yaml" in caught.value.next_step
    assert problem.line is not None
    assert abs(problem.line - line) <= 1  # the parser notices some mistakes on the following line


def test_a_list_as_a_key_names_its_line_and_a_date_is_text() -> None:
    with pytest.raises(SpecError, match=r"line 16 .*a key that is no plain text"):
        parse_spec(GOOD + "? [a, b]\n: 1\n", Recipe, source="r.yaml")
    assert problems_of(GOOD + "2024-01-01: 1\n")["2024-01-01"][:2] == (16, "unknown key")
    dated = parse_spec(changed('entailment: " Yes"', '2024-01-01: " Yes"'), Recipe, source="r.yaml")
    assert "2024-01-01" in dated.task.verbalizers


def test_an_alias_of_its_own_container_is_no_endless_loop() -> None:
    with pytest.raises(SpecError, match=r"line 16 .*alias of what it is part of"):
        parse_spec(GOOD + "loop: &a [*a]\n", Recipe, source="r.yaml")


def test_a_missing_file_and_a_binary_file_are_spec_errors(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        load_spec(tmp_path / "none.yaml", Recipe)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"a: \xff\xfe")
    with pytest.raises(SpecError, match=r"UTF-8.*\nnext: name a recipe, or save it as UTF-8 text"):
        load_spec(binary, Recipe)


def test_dumped_yaml_is_the_same_recipe() -> None:
    recipe = parse_spec(GOOD, Recipe, source="r.yaml")
    dumped = dump_yaml(recipe)
    assert "transfer_examples: 4096" in dumped
    assert parse_spec(dumped, Recipe, source="dumped") == recipe


def test_a_data_file_that_is_missing_is_a_problem_only_where_data_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(changed('"builtin:nli/entailment", split: train', '"file:data/a.csv"'))
    assert load_spec(path, Recipe).task.train.source == "file:data/a.csv"
    with pytest.raises(
        SpecError, match=r"line 6 +task.train.source +no file .*data/a.csv; expected a data file"
    ):
        load_spec(path, Recipe, with_data=True)
    path.write_text(path.read_text().replace('data/a.csv"', 'data/a.csv", split: x'))
    with pytest.raises(SpecError, match="2 problems") as caught:  # of the split, too
        load_spec(path, Recipe, with_data=True)
    assert [problem.key for problem in caught.value.problems] == ["task.train.source", "task.train.split"]
    path.write_text(path.read_text().replace(", split: x", ""))
    (tmp_path / "data" / "a.csv").mkdir(parents=True)
    with pytest.raises(SpecError, match=r"data/a.csv is a folder; expected a data file"):
        load_spec(path, Recipe, with_data=True)
    (tmp_path / "data" / "a.csv").rmdir()
    (tmp_path / "data" / "a.csv").touch()
    assert load_spec(path, Recipe, with_data=True).task.train.source == "file:data/a.csv"


def test_a_source_shows_its_split_where_it_has_one() -> None:
    assert str(Source(source="file:a.csv")) == "file:a.csv"
    assert str(Source(source="builtin:nli", split="test")) == "builtin:nli (test)"


def test_a_plan_edited_by_hand_is_read_with_lines() -> None:
    plan = QuantPlan(
        model_digest="0",
        importance="sensitivity",
        groups=(GroupPlan(group="embedding", format=Format(bits=4, block_size=32)),),
        predicted_weight_bytes=1,
        predicted_artifact_bytes=2,
        predicted_resident_bytes=3,
    )
    text = plan.model_dump_json(indent=1)
    assert parse_spec(text, QuantPlan, source="plan.json") == plan
    with pytest.raises(SpecError) as caught:
        parse_spec(text.replace('"bits": 4', '"bits": 3'), QuantPlan, source="plan.json")
    (problem,) = caught.value.problems
    assert (problem.key, problem.line) == ("groups.0.format.bits", 9)
    assert "allowed: 2, 4, 8, 16, 32" in problem.expected


def test_sizes_of_a_target_may_have_units_and_wrong_ones_are_explained() -> None:
    text = (
        "version: 1\nname: t\ndescription: d\nthreads: 1\ncontext_tokens: 8\n"
        "runtime_overhead_bytes: 1 MB\nformats: [{bits: 8, block_size: 32}]\n"
        "budget: {artifact_bytes: 1.5MiB}\nsources: {}\n"
    )
    assert parse_spec(text, Target, source="t").budget.artifact_bytes == 1_572_864
    with pytest.raises(SpecError, match=r"line 8 .*'1.5 parsecs' is no size; expected bytes"):
        parse_spec(text.replace("1.5MiB", "1.5 parsecs"), Target, source="t")
