from __future__ import annotations

from pathlib import Path

from edgeicl.specs.loading import dump_yaml, parse_spec
from edgeicl.specs.located import located
from edgeicl.specs.recipe import Recipe


def test_paths_are_absolute_and_names_stay(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("")
    (tmp_path / "my-student").mkdir()
    (tmp_path / "my-phone.yaml").write_text("")
    (tmp_path / "hub").mkdir()
    recipe = Recipe.model_validate(
        {
            "version": 1,
            "name": "r",
            "task": {
                "pattern": "{a}",
                "verbalizers": {"yes": " Yes", "no": " No"},
                "train": {"source": "file:data.jsonl"},
                "in_domain": {"source": "hub:./hub", "split": "test"},
                "out_of_domain": {"source": "builtin:nli", "split": "test"},
            },
            "distill": {
                "teacher": {"model": "facebook/opt-1.3b"},
                "student": {"model": "my-student"},
                "demonstrations": {"count": 2},
                "method": "context",
                "transfer_examples": 4,
            },
            "quantize": {"plan": "absent.json"},
            "targets": ["my-phone.yaml", "tiny-cpu"],
        }
    )
    found = located(recipe, tmp_path)
    root = tmp_path.resolve()
    assert found.task.train.source == f"file:{root}/data.jsonl"
    assert found.task.in_domain.source == f"hub:{root}/hub"
    assert found.task.out_of_domain == recipe.task.out_of_domain
    assert found.distill.student.model == f"{root}/my-student"
    assert found.distill.teacher == recipe.distill.teacher
    assert found.quantize.plan == "absent.json"
    assert found.targets == (f"{root}/my-phone.yaml", "tiny-cpu")
    assert parse_spec(dump_yaml(found), Recipe, source="elsewhere") == found
    assert located(found, Path("/")) == found
