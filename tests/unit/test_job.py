"""What `check` and `compile` find before any work: everything, of all files, in one error."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeicl.errors import SpecError
from edgeicl.job import resolve
from tests.unit.specs.test_loading import GOOD, changed


def test_problems_of_all_files_come_together(tmp_path: Path) -> None:
    recipe, target = tmp_path / "r.yaml", tmp_path / "t.yaml"
    recipe.write_text(changed("count: 16", "count: 0"))
    target.write_text("version: 3\n")
    with pytest.raises(SpecError) as caught:
        resolve(str(recipe), targets=[str(target), "tiny-cpuu"])
    message = str(caught.value)
    assert f"{recipe}: 1 problem\n" in message
    assert "distill.demonstrations.count" in message
    assert f"{target}: 9 problems\n" in message
    assert "did you mean 'tiny-cpu'?" in message
    assert len(caught.value.problems) == 11
    assert message.count("next: ") == 1


def test_the_plan_and_the_targets_of_a_good_recipe_come_together(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(GOOD.replace("tiny-cpu", "no-such") + "quantize: {plan: absent.json}\n")
    with pytest.raises(SpecError) as caught:
        resolve(str(recipe))
    assert [problem.key for problem in caught.value.problems] == ["targets", "PLAN"]


def test_a_target_that_a_wrong_recipe_names_is_looked_for_too(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(changed("count: 16", "count: 0").replace("[tiny-cpu]", "[tiny-cup]"))
    with pytest.raises(SpecError) as caught:
        resolve(str(recipe))
    first, second = caught.value.problems
    assert first.key == "distill.demonstrations.count"
    assert (second.key, recipe.read_text().splitlines()[(second.line or 0) - 1]) == (
        "targets",
        "targets: [tiny-cup]",
    )
    assert "did you mean 'tiny-cpu'?" in second.expected


def test_a_recipe_that_is_not_there_hides_no_bad_target() -> None:
    with pytest.raises(SpecError, match=r"there is no 'nope'[\s\S]*there is no 'neither'"):
        resolve("nope", targets=["neither"])


def test_a_time_of_decoding_for_what_decodes_nothing_is_refused(tmp_path: Path) -> None:
    calibration = "{bandwidth_bytes_per_second: 1.0e9, measurements: 1, source: made up}"
    asked = ["budget.decode_ms=50", f"calibration={calibration}"]
    with pytest.raises(SpecError, match=r"budget\.decode_ms of target tiny-cpu is 50") as caught:
        resolve("quickstart", recipe_overrides=["emit.head=verbalizers"], target_overrides=asked, builds=False)
    assert [problem.key for problem in caught.value.problems] == ["emit.head"]
    resolve("quickstart", target_overrides=asked, builds=False)


def test_refining_a_plan_that_is_given_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        resolve("quickstart", recipe_overrides=["quantize={plan: a.json, refine: 2}"], builds=False)
    assert "quantize.refine" in [problem.key for problem in caught.value.problems]
