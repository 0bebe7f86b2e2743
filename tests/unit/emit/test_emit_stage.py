"""The stage as the pipeline calls it: a folder that is checked, counted and published, or an error and none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeicl.emit import emission
from edgeicl.emit.checked_examples import checked_examples
from edgeicl.emit.emission import CHECKS_FILE
from edgeicl.emit.model_card import base_license, model_card
from edgeicl.emit.stage import emit
from edgeicl.errors import BudgetError, DataError, QualityError
from edgeicl.specs.manifest import EmitChecks, Manifest
from edgeicl.specs.quant_plan import BY_ROW, Format, QuantPlan
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.store import StageOutput, Store
from tests.unit.emit.tiny_opt import Tiny

INT8 = Format(bits=8, block_size=32)
WORDS = ("cat", "dog", "the", "near", "by", "was", "no", "sat")


def make_recipe(folder: Path, *, examples: int = 24, **changes: object) -> Recipe:
    rows = [
        {"a": f"{WORDS[i % 8]} {WORDS[(i * 3 + 1) % 8]} {i}", "label": ("yes", "no")[i % 2]}
        for i in range(examples)
    ]
    for name in ("in.jsonl", "out.jsonl"):
        (folder / name).write_text("\n".join(map(json.dumps, rows)))
    content = {
        "version": 1,
        "name": "tiny",
        "task": {
            "pattern": "{a} answer:",
            "verbalizers": {"yes": " Yes", "no": " No"},
            "train": {"source": "file:in.jsonl"},
            "in_domain": {"source": "file:in.jsonl"},
            "out_of_domain": {"source": "file:out.jsonl"},
        },
        "distill": {"method": "none", "student": {"model": "facebook/opt-125m"}},
    }
    return Recipe.model_validate(content | changes)


def make_target(**budget: int) -> Target:
    return Target.model_validate(
        {
            "version": 1,
            "name": "desk",
            "description": "a desk",
            "threads": 1,
            "context_tokens": 48,
            "runtime_overhead_bytes": 1,
            "formats": [{"bits": 8, "block_size": 32}],
            "budget": budget or {"artifact_bytes": 10_000_000},
            "sources": {},
        }
    )


def run(tiny: Tiny, folder: Path, recipe: Recipe, target: Target, *, digest: str = "q") -> StageOutput:
    return emit(
        recipe,
        target,
        student=tiny.student,
        quantized=StageOutput(tiny.quantized, digest, False, 0.0),
        store=Store(folder / "store"),
        base_folder=folder,
    )


def checks_of(output: StageOutput) -> EmitChecks:
    return EmitChecks.model_validate_json((output.path / CHECKS_FILE).read_text())


def test_publishes_a_checked_folder(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    tiny, recipe, target = quantize(INT8), make_recipe(tmp_path), make_target()
    output = run(tiny, tmp_path, recipe, target)
    checks = checks_of(output)
    files = {path.name for path in output.path.iterdir()} - {CHECKS_FILE, "stage.json"}
    assert files == {
        "model.onnx",
        "model.onnx.data",
        "config.json",
        "generation_config.json",
        "genai_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "task.json",
    }
    for file in files:
        counted = sum(row.bytes for row in checks.ledger if row.file == file)
        assert counted == (output.path / file).stat().st_size, file
    assert {row.file for row in checks.ledger} == files
    assert len(checks.parity) == 8
    assert [(row.data, row.limit_points, row.examples) for row in checks.accuracy] == [
        ("in_domain", 1.0, 24),
        ("out_of_domain", None, 24),
    ]
    again = run(tiny, tmp_path, recipe, target)
    assert again.reused
    assert not run(tiny, tmp_path, recipe, target, digest="other").reused
    (tmp_path / "in.jsonl").write_text((tmp_path / "in.jsonl").read_text().replace("cat", "dog"))
    assert not run(tiny, tmp_path, recipe, target).reused


def test_integer_products_pass_the_checks(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    """Those of a ReLU's outputs too, which are rounded as the student's anatomy says."""
    checks = checks_of(run(quantize(BY_ROW), tmp_path, make_recipe(tmp_path), make_target()))
    assert checks.parity[0].name.startswith("integer product, layers.")


def test_what_a_killed_run_left_does_not_matter(
    quantize: Callable[[Format], Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, recipe, target = quantize(INT8), make_recipe(tmp_path), make_target()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(emission, "check_parity", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, tmp_path, recipe, target)
    (partial,) = (tmp_path / "store" / "emit").glob("*.partial")
    (partial / "left_over").write_text("half")
    output = run(tiny, tmp_path, recipe, target)
    assert not (output.path / "left_over").exists()
    assert (output.path / CHECKS_FILE).is_file()


def test_over_budget_is_an_error_and_publishes_nothing(
    quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny = quantize(INT8)
    with pytest.raises(
        BudgetError, match=r"the budget of target desk is 50,000; the plan predicted 0"
    ) as caught:
        run(tiny, tmp_path, make_recipe(tmp_path), make_target(artifact_bytes=50_000))
    assert caught.value.smallest_bytes > 50_000
    assert [path.suffix for path in (tmp_path / "store" / "emit").iterdir() if path.is_dir()] == [".partial"]


def test_an_artifact_worse_than_its_student_is_refused(
    quantize: Callable[[Format], Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The student is right on every example; the artifact always says the first label."""
    tiny = quantize(INT8)
    answers = iter([np.arange(24) % 2, np.zeros(24, np.int64)])
    monkeypatch.setattr(emission, "predict", lambda *_, **__: next(answers))
    with pytest.raises(QualityError, match=r"in_domain: the artifact is right on 50\.00% of 24 examples"):
        run(tiny, tmp_path, make_recipe(tmp_path), make_target())


def test_weights_spoiled_after_quantization_show_in_the_accuracy(
    quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    """Parity compares with the same weights and passes; that they are the wrong ones, the task finds out."""
    tiny, target = quantize(INT8), make_target()
    recipe = make_recipe(tmp_path, limits={"accuracy_drop_points": 100.0})
    sound = checks_of(run(tiny, tmp_path, recipe, target)).accuracy[0]
    assert abs(sound.student - sound.artifact) <= 2 / sound.examples
    spoiled = tmp_path / "spoiled"
    spoiled.mkdir()
    tensors = load_file(tiny.quantized / "weights.safetensors")
    name = "model.decoder.final_layer_norm.weight"
    tensors[name] = -tensors[name]
    save_file(tensors, spoiled / "weights.safetensors")
    shutil.copy(tiny.quantized / "plan.json", spoiled)
    wrong = checks_of(run(Tiny(tiny.student, spoiled), tmp_path, recipe, target, digest="s")).accuracy[0]
    assert wrong.student == sound.student
    assert abs(wrong.artifact - sound.artifact) > 2 / sound.examples


def test_a_query_longer_than_the_model_is_refused(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    (tmp_path / "in.jsonl").write_text(json.dumps({"a": "cat 123 " * 40, "label": "yes"}))
    with pytest.raises(
        DataError, match=r"in\.jsonl.*the query takes \d+ tokens .* context_tokens 48, the student 64 positions"
    ):
        run(quantize(INT8), tmp_path, recipe, make_target())


def test_a_query_longer_than_the_memory_set_aside_is_refused(
    quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    recipe, target = make_recipe(tmp_path), make_target().model_copy(update={"context_tokens": 6})
    with pytest.raises(DataError, match=r"found room for 6: target desk has context_tokens 6"):
        run(quantize(INT8), tmp_path, recipe, target)


def test_a_provider_that_is_not_there_is_a_deviation(
    quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny, recipe, target = quantize(INT8), make_recipe(tmp_path), make_target()
    assert "provider" not in {
        deviation.what for deviation in checks_of(run(tiny, tmp_path, recipe, target)).deviations
    }
    on_gpu = target.model_copy(update={"provider": "cuda"})
    found = [
        entry for entry in checks_of(run(tiny, tmp_path, recipe, on_gpu)).deviations if entry.what == "provider"
    ]
    assert [(entry.asked, entry.got) for entry in found] == [("cuda", "cpu")]


def test_a_data_set_that_changed_is_checked_anew(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    """A hub data set in a local folder: its name stays, what it holds does not."""
    tiny, target = quantize(INT8), make_target()
    recipe = make_recipe(tmp_path)
    hub = tmp_path / "hub"
    hub.mkdir()
    text = (tmp_path / "in.jsonl").read_text()
    (hub / "test.jsonl").write_text(text)
    task = recipe.task.model_copy(
        update={"in_domain": recipe.task.in_domain.model_copy(update={"source": "hub:./hub", "split": "test"})}
    )
    recipe = recipe.model_copy(
        update={"task": task, "limits": recipe.limits.model_copy(update={"accuracy_drop_points": 100.0})}
    )
    run(tiny, tmp_path, recipe, target)
    assert run(tiny, tmp_path, recipe, target).reused
    (hub / "test.jsonl").write_text(text.replace("cat", "dog"))
    assert not run(tiny, tmp_path, recipe, target).reused


def test_examples_are_drawn_not_strided(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    """Labels alternate in the file; every second example would be of one label only."""
    limits = {"accuracy_drop_points": 100.0, "accuracy_examples": 20}
    recipe = make_recipe(tmp_path, examples=40, limits=limits)
    drawn = checked_examples(recipe, tmp_path)["in_domain"]
    assert len(drawn) == 20
    assert {example.label for example in drawn} == {"yes", "no"}
    assert drawn == checked_examples(recipe, tmp_path)["in_domain"]


def test_model_card(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    tiny, recipe, target = quantize(INT8), make_recipe(tmp_path), make_target()
    output = run(tiny, tmp_path, recipe, target)
    checks = checks_of(output)
    manifest = Manifest(
        name="tiny",
        target="desk",
        seed=0,
        recipe_digest="r",
        target_digest="t",
        versions={"edgeicl": "9.9"},
        files={},
        plan=QuantPlan.model_validate_json((tiny.quantized / "plan.json").read_text()),
        ledger=checks.ledger,
        parity=checks.parity,
        accuracy=checks.accuracy,
    )
    card = model_card(
        output.path, manifest, recipe=recipe, target=target, source=tiny.student, base_folder=tmp_path
    )
    _, front, text = card.split("---\n", 2)
    assert "license: other\nlicense_name: opt-license\nbase_model: facebook/opt-125m\n" in front
    assert "library_name: onnx\npipeline_tag: text-generation\n" in front
    total = sum(row.bytes for row in checks.ledger)
    assert f"{total:,} bytes" in text
    assert "| int8/block32 | 9 |" in text
    assert "parity, exact, padded batch, decode" in text
    assert "edgeicl 9.9 from `facebook/opt-125m`" in text

    (tmp_path / "facebook/opt-125m").mkdir(parents=True)
    of_local = model_card(
        output.path, manifest, recipe=recipe, target=target, source=tiny.student, base_folder=tmp_path
    )
    assert "base_model" not in of_local


@pytest.mark.parametrize(
    ("base", "card", "expected"),
    [
        ("builtin:nli-student", None, {"license": "mit"}),
        ("some/model", None, {"license": "unknown"}),
        ("some/model", "license: in the text\n", {"license": "unknown"}),
        ("some/model", "---\nlicense: mit\n---\n", {"license": "mit"}),
        ("some/model", "---\ntags:\n- x\nlicense:\n- 'apache-2.0'\n---\n", {"license": "apache-2.0"}),
        ("some/model", "---\nlicense: [\n---\n", {"license": "unknown"}),
        ("facebook/opt-125m", None, {"license": "other", "license_name": "opt-license"}),
        (
            "some/model",
            "---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\n---\nlicense: mit\n",
            {"license": "other", "license_name": "own", "license_link": "LICENSE"},
        ),
    ],
)
def test_the_licence_is_that_of_the_base_model(
    base: str, card: str | None, expected: dict[str, str], tmp_path: Path
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert base_license(base, tmp_path) == expected


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (b"---\nlicense: mit\n---\ncaf\xe9\n", {"license": "mit"}),
        (b"---\nlicense: mit\ndate: 2023-13-45\n---\n", {"license": "unknown"}),
        (b"\xff\xfe", {"license": "unknown"}),
    ],
)
def test_an_odd_card_of_the_student_stops_nothing(
    card: bytes, expected: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_bytes(card)
    assert base_license("some/model", tmp_path) == expected
