"""Programs on two processes, as torchrun starts them; run as one itself, it distills a recipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from edgeicl.specs.recipe import Recipe

REPOSITORY = Path(__file__).parents[3]
RESULT = "result.json"


def launch(program: Path, *arguments: str) -> None:
    """Runs `program` on two processes, which must end well."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(program), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def distilled_by_two(recipe: Recipe, folder: Path) -> dict[str, Path]:
    """What two processes that share a store in `folder` make of `recipe`: its student, its compressor."""
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    launch(Path(__file__), str(folder))
    return {name: Path(path) for name, path in json.loads((folder / RESULT).read_text()).items()}


def main(folder: Path) -> None:
    """What each of the two processes does."""
    import torch

    from edgeicl.distill.stage import distill
    from edgeicl.distill.workers import workers
    from edgeicl.store import Store

    recipe = Recipe.model_validate_json((folder / "recipe.json").read_text())
    together = workers()
    assert torch.distributed.get_world_size() == 2
    result = distill(recipe, store=Store(folder / "two", workers=together), base_folder=folder)
    assert (result.student / "model.safetensors").exists()
    if together.is_writer:
        made = {"student": result.student, "compressor": result.compressor}
        (folder / RESULT).write_text(json.dumps({name: str(path) for name, path in made.items() if path}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
