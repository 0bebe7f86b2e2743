"""`edgeicl plan`: what a build will give, before it is made."""

from __future__ import annotations

from pathlib import Path

from edgeicl.specs.manifest import Manifest
from tests.e2e.forecast_check import check_forecast, forecast
from tests.e2e.small_build import SMALL, Program

ARGUMENTS = ("recipes/quickstart.yaml", *(part for override in SMALL for part in ("--set", override)))


def test_the_build_gives_what_was_said(program: Program, artifact: Path, tmp_path: Path) -> None:
    manifest = Manifest.model_validate_json((artifact / "edgeicl.json").read_bytes())
    check_forecast(program, ARGUMENTS, manifest, tmp_path / "cache")


def test_what_is_measured_already_is_not_counted_again(program: Program, artifact: Path) -> None:
    other = ("--target-set", "budget.artifact_bytes=260kB")
    found = forecast(program, [*ARGUMENTS, *other])["targets"][0]
    assert [entry["state"] for entry in found["stages"]][:3] == ["in the store", "to be built", "after that"]
    assert found["to_measure"] == 0
    assert found["best"]["artifact_bytes"] <= 260_000


def test_the_table_names_sizes_stages_and_what_memory_goes_to(program: Program, tmp_path: Path) -> None:
    done = Program(tmp_path / "cache").run("plan", *ARGUMENTS, "-t", "tiny-cpu", "-t", "host-cpu", "-t", "cuda")
    assert done.returncode == 0, done.stderr
    for words in ("quickstart for tiny-cpu: fits", "quickstart for host-cpu: fits", "uniform int4/block32"):
        assert words in done.stdout
    for words in (
        "330.0 kB",
        "key/value cache",
        "teacher-gain",
        "to be built",
        "time of the build: about",
    ):
        assert words in done.stdout
    assert "deviation: target cuda: provider: asked cuda, got c" in done.stdout  # cpu, or cuda for parity
    assert not (tmp_path / "cache").exists()


def test_a_budget_that_nothing_fits_ends_as_the_build_does(program: Program, tmp_path: Path) -> None:
    tight = ("--target-set", "budget.artifact_bytes=100kB")
    planned = Program(tmp_path / "cache").run("plan", *ARGUMENTS, *tight)
    built = program.run("compile", *ARGUMENTS, *tight, "-o", str(tmp_path / "out"))
    assert planned.returncode == built.returncode == 4
    said = [text.partition("error: ")[2] for text in (planned.stderr, built.stderr)]
    assert said[0] == said[1] != ""
    assert "no plan fits" in planned.stdout
    assert "least of each" in planned.stdout
    assert "next:" not in planned.stdout  # once is enough
