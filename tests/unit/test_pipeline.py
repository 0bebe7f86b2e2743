"""The order of the stages, what goes where, and what is refused; the stages themselves are stand-ins."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgeicl.bench.workload import Workload
from edgeicl.errors import DataError, DeviationError, EdgeiclError, SpecError
from edgeicl.job import Job, resolve
from edgeicl.pipeline import CompileResult, compile_job
from edgeicl.specs.loading import load_spec
from edgeicl.specs.manifest import Manifest
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.store import SingleProcess, Store, verify_stage
from edgeicl.stored import clear, stored
from tests.unit.samples import CURVE, DEVIATION, PLAN, bench_result, emit_checks, evaluation
from tests.unit.specs.test_loading import GOOD

TARGET = (
    "version: 1\nname: {name}\ndescription: d\nthreads: 2\ncontext_tokens: 64\nruntime_overhead_bytes: 1 MB\n"
    "formats: [{{bits: 8, block_size: 32}}]\nbudget: {{artifact_bytes: 5 MB}}\nsources: {{}}\n"
)


@dataclass
class Distilled:
    student: Path
    digest: str
    evaluation: Any
    outputs: tuple[Any, ...]
    source: Path = Path("source")
    deviations: tuple[Any, ...] = ()
    prefix: Path | None = None
    compressor: Path | None = None


@dataclass
class Stages:
    """Stand-ins that go through the real store and write down what happened."""

    done: list[str] = field(default_factory=list)
    fails_in: str = ""
    quantize_deviations: tuple[Any, ...] = ()
    workers: Any = field(default_factory=SingleProcess)

    def _work(self, stage: str, write: Callable[[Path], None]) -> Callable[[Path], None]:
        def build(folder: Path) -> None:
            if self.fails_in == stage:
                raise RuntimeError(f"{stage} fails")
            self.done.append(stage)
            write(folder)

        return build

    def distill(self, recipe: Recipe, *, store: Store, base_folder: Path) -> Distilled:
        def write(folder: Path) -> None:
            (folder / "weights").write_text("w")

        output = store.run("distill", {"seed": recipe.seed}, self._work("distill", write))
        return Distilled(output.path, output.digest, evaluation(), (("train", output),))

    def quantize(self, recipe: Recipe, target: Target, *, student_digest: str, store: Store, **_: Any) -> Any:
        def write(folder: Path) -> None:
            (folder / "plan.json").write_text(PLAN.model_dump_json())
            (folder / "curve.json").write_text(CURVE.model_dump_json())
            listed = [deviation.model_dump() for deviation in self.quantize_deviations]
            (folder / "deviations.json").write_text(json.dumps(listed))

        inputs = {"target": target.model_dump(mode="json"), "student": student_digest}
        return store.run("quantize", inputs, self._work(f"quantize {target.name}", write))

    def emit(self, recipe: Recipe, target: Target, *, quantized: Any, store: Store, **_: Any) -> Any:
        def write(folder: Path) -> None:
            (folder / "model.onnx").write_text("graph")
            (folder / "checks.json").write_text(emit_checks().model_dump_json())

        return store.run("emit", {"q": quantized.digest}, self._work(f"emit {target.name}", write))

    def bench(self, artifact: Path, workload: Workload) -> Any:
        if self.fails_in == "bench":
            raise RuntimeError("bench fails")
        assert (artifact / "edgeicl.json").exists()
        assert not (artifact / "checks.json").exists()
        assert workload.prompt_tokens + workload.decode_tokens < 64
        self.done.append(f"bench {artifact.name}")
        return bench_result()


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stages:
    stages = Stages()
    fakes: dict[str, dict[str, Any]] = {
        "edgeicl.distill.stage": {"distill": stages.distill},
        "edgeicl.distill.workers": {"workers": lambda: stages.workers},
        "edgeicl.quantize.stage": {"quantize": stages.quantize},
        "edgeicl.emit.stage": {"emit": stages.emit},
        "edgeicl.emit.model_card": {
            "model_card": lambda _, manifest, *, source, **__: f"# {manifest.name} from {source}\n"
        },
        "edgeicl.bench.stage": {"bench": stages.bench},
        "edgeicl.bench.device_facts": {"usable_cores": lambda: 4},
    }
    for name, members in fakes.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(GOOD.replace("[tiny-cpu]", "[a.yaml, b.yaml]"))
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(TARGET.format(name=name))
    return stages


def compiled(job: Job, **options: Any) -> CompileResult:
    result = compile_job(job, **options)
    assert result is not None
    return result


def test_distilled_once_and_compiled_for_each_target(stages: Stages, tmp_path: Path) -> None:
    result = compiled(resolve("good.yaml"))
    assert stages.done == [
        "distill",
        "quantize a",
        "emit a",
        "bench .a.edgeicl-partial",
        "quantize b",
        "emit b",
        "bench .b.edgeicl-partial",
    ]
    folder = tmp_path / "build" / "good" / "a"
    assert [built.folder for built in result.built] == [Path("build/good/a"), Path("build/good/b")]
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "model.onnx",
        "edgeicl.json",
        "README.md",
        "plan.json",
        "recipe.resolved.yaml",
        "target.resolved.yaml",
        "report.md",
        "report.html",
    }
    assert (folder / "README.md").read_text() == "# good from source\n"
    manifest = Manifest.model_validate_json((folder / "edgeicl.json").read_bytes())
    assert manifest == result.built[0].manifest
    assert set(manifest.files) == names - {"edgeicl.json"}
    where = "on this computer (x86_64, <b>a processor</b>)"
    assert manifest.bench == bench_result().model_copy(update={"notes": (where,)})
    written = load_spec(folder / "recipe.resolved.yaml", Recipe)
    assert written.targets == (str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    assert written.model_copy(update={"targets": result.recipe.targets}) == result.recipe
    assert load_spec(folder / "target.resolved.yaml", Target) == result.built[0].target


def test_a_second_run_skips_what_is_unchanged_and_measures_again(
    stages: Stages, caplog: pytest.LogCaptureFixture
) -> None:
    compile_job(resolve("good.yaml", targets=["a.yaml"]))
    stages.done.clear()
    caplog.set_level("INFO", logger="edgeicl")
    compile_job(resolve("good.yaml", targets=["a.yaml"]))
    assert stages.done == ["bench .a.edgeicl-partial"]
    skipped = [r.getMessage() for r in caplog.records if r.getMessage().endswith("unchanged, skipped")]
    assert [line.split(" ...")[0] for line in skipped] == [
        "[1/5] distill",
        "[2/5] plan bits and quantize for a",
        "[3/5] emit and check for a",
    ]
    stages.done.clear()
    compile_job(resolve("good.yaml", targets=["a.yaml"]), rebuild=True, measure=False)
    assert stages.done == ["distill", "quantize a", "emit a"]


@pytest.mark.parametrize("stage", ["distill", "quantize a", "emit a", "bench"])
def test_a_failure_leaves_no_artifact_and_the_next_run_goes_on_from_there(
    stages: Stages, tmp_path: Path, stage: str
) -> None:
    stages.fails_in = stage
    with pytest.raises(RuntimeError, match=f"{stage} fails"):
        compile_job(resolve("good.yaml", targets=["a.yaml"]))
    assert not (tmp_path / "build/good/a").exists()
    before, stages.fails_in = list(stages.done), ""
    compile_job(resolve("good.yaml", targets=["a.yaml"]))
    assert stages.done == ["distill", "quantize a", "emit a", "bench .a.edgeicl-partial"]
    assert stages.done[: len(before)] == before
    assert (tmp_path / "build/good/a/edgeicl.json").exists()


def test_a_failure_keeps_the_older_artifact(stages: Stages, tmp_path: Path) -> None:
    job = resolve("good.yaml", targets=["a.yaml"])
    compile_job(job)
    before = (tmp_path / "build/good/a/edgeicl.json").read_bytes()
    stages.fails_in = "bench"
    with pytest.raises(RuntimeError, match="bench fails"):
        compile_job(job)
    assert (tmp_path / "build/good/a/edgeicl.json").read_bytes() == before


def test_deviations_are_kept_and_strict_refuses_them(stages: Stages, tmp_path: Path) -> None:
    stages.quantize_deviations = (DEVIATION,)
    job = resolve("good.yaml", targets=["a.yaml"])
    with pytest.raises(DeviationError, match="asked int4/block64, got int8/block32"):
        compile_job(job, strict=True)
    assert stages.done == ["distill", "quantize a"]
    assert not (tmp_path / "build/good/a").exists()
    stages.quantize_deviations = (DEVIATION, DEVIATION.model_copy(update={"where": "layers.1.mlp.up"}))
    with pytest.raises(DeviationError, match=r"2 deviation\(s\).*\n  2 places, layers.0.mlp.up first"):
        compile_job(job, strict=True, rebuild=True)
    stages.quantize_deviations = (DEVIATION,)
    assert compiled(job, rebuild=True).built[0].manifest.deviations == (DEVIATION,)
    assert "int4/block64" in (tmp_path / "build/good/a/report.md").read_text()


def test_fewer_cores_than_the_target_has_is_a_deviation(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["edgeicl.bench.device_facts"], "usable_cores", lambda: 1)
    job = resolve("good.yaml", targets=["a.yaml"])
    (deviation,) = compiled(job).built[0].manifest.deviations
    assert (deviation.what, deviation.got) == ("benchmark threads", "1 threads")
    with pytest.raises(DeviationError, match="asked 2 threads"):
        compile_job(job, strict=True)
    assert compiled(job, measure=False, strict=True).built[0].manifest.bench is None


def test_a_helping_process_goes_home_after_distilling(stages: Stages, tmp_path: Path) -> None:
    class Helper(SingleProcess):
        is_writer = False

        def from_writer(self, value: Any) -> Any:
            return (value[0], True) if isinstance(value, tuple) else value  # it found the output in the store

    stages.workers = Helper()
    assert compile_job(resolve("good.yaml")) is None
    assert stages.done == []
    assert not (tmp_path / "build").exists()


def test_where_artifacts_go(stages: Stages) -> None:
    assert resolve("good.yaml", output=Path("o")).folders == (Path("o/a"), Path("o/b"))
    assert resolve("good.yaml", targets=["a.yaml"], output=Path("o")).folders == (Path("o"),)


def test_what_can_be_refused_is_refused_before_any_work(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="a twice"):
        resolve("good.yaml", targets=["a.yaml", "a.yaml"])
    with pytest.raises(SpecError, match="expected a target"):
        resolve("good.yaml", recipe_overrides=["targets=[]"])
    with pytest.raises(SpecError, match=r"there is no 'c\.yaml'"):
        resolve("good.yaml", targets=["c.yaml"])
    with pytest.raises(SpecError, match=r"command line .*artifact_byte .*did you mean 'artifact_bytes'"):
        resolve("good.yaml", target_overrides=["budget.artifact_byte=1MB"])
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(SpecError, match=r"plan\.json: 6 problems"):
        resolve("good.yaml", recipe_overrides=["quantize.plan=plan.json"])
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="will not be replaced"):
        resolve("good.yaml", targets=["a.yaml"], output=Path("o"))
    assert stages.done == []


def test_bad_outputs_are_refused_before_any_work(stages: Stages, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (Path(), tmp_path / "file", tmp_path / "file" / "o"):
        with pytest.raises(DataError, match="output: "):
            resolve("good.yaml", targets=["a.yaml"], output=output)
    with pytest.raises(DataError, match="is a file"):
        resolve("good.yaml", output=tmp_path / "file")
    assert resolve("good.yaml", output=tmp_path / "file", builds=False).recipe.name == "good"


def test_a_linked_output_is_built_where_it_leads(stages: Stages, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for _ in range(2):
        compiled(resolve("good.yaml", targets=["a.yaml"], output=Path("link")))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "edgeicl.json").exists()
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"real", "link", "cache"}


def test_a_running_build_keeps_clear_and_rebuild_away(stages: Stages, tmp_path: Path) -> None:
    """What it was given by the store is still there when it comes to read it."""
    job = resolve("good.yaml", targets=["a.yaml"])
    told = []

    def interrupted(*_: Any, **__: Any) -> None:
        for other in (lambda: clear(tmp_path / "cache"), lambda: compile_job(job, rebuild=True)):
            with pytest.raises(EdgeiclError, match="nothing was removed") as caught:
                other()
            told.append(str(caught.value))
        raise KeyboardInterrupt

    sys.modules["edgeicl.quantize.stage"].quantize = interrupted  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        compile_job(job)
    assert [text.split(":")[0] for text in told] == ["cache clear", "--rebuild"]
    assert stages.done == ["distill"]
    assert [entry.stage for entry in stored(tmp_path / "cache")] == ["distill"]


def test_overrides_reach_the_stages(stages: Stages) -> None:
    result = compiled(
        resolve(
            "good.yaml",
            targets=["a.yaml"],
            recipe_overrides=["seed=7"],
            target_overrides=["budget.artifact_bytes=1MB", "threads=1"],
        )
    )
    assert result.built[0].manifest.seed == 7
    assert result.built[0].target.budget.artifact_bytes == 1_000_000
    verify_stage(next(Path("cache/distill").resolve().glob("*/stage.json")).parent)
