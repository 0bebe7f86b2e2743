"""Imports run one way, stages never meet, and light parts stay light."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.source_tree import PACKAGE, REPOSITORY, Import, imports_of, module_name, python_files

STAGES = ("distill", "quantize", "emit", "bench", "report")

# Higher may import lower, never the other way; parts on one line may not import each other.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    (
        "recipe_commands",
        "compile_commands",
        "runtime_commands",
        "bench_commands",
        "headline_commands",
        "device_commands",
    ),
    ("arguments", "forecast", "probe", "installation"),
    ("build_time", "probed_computer"),
    ("pipeline", "new_prefix"),
    ("compressor", "known_ahead"),
    ("job",),
    ("artifact", "steps", "stored"),
    STAGES,
    ("tasks", "models", "replacement", "shared_cache", "checkpoint"),
    ("kept",),
    ("store", "cache_lock"),
    ("numerics",),
    ("specs",),
    ("errors", "progress", "module_process", "launched", "usable_cores"),
    ("",),
)
LEVEL = {part: height for height, parts in enumerate(reversed(LEVELS)) for part in parts}


def part_of(module: str) -> str:
    """`edgeicl.specs.recipe` -> `specs`; the package itself is the empty part."""
    return module.split(".")[1] if "." in module else ""


def offences(found: list[Import]) -> list[str]:
    """Imports that go up, or from one stage (or neighbour) to another."""
    wrong = []
    for entry in found:
        if entry.module.split(".")[0] != "edgeicl":
            continue
        importer, imported = part_of(module_name(entry.path)), part_of(entry.module)
        if importer != imported and LEVEL[importer] <= LEVEL[imported]:
            wrong.append(f"{entry}: {importer} may not import {imported}")
    return wrong


def test_every_part_has_its_level() -> None:
    parts = {part_of(module_name(path)) for path in python_files()}
    assert parts <= set(LEVEL), f"give a level to: {parts - set(LEVEL)}"


def test_imports_run_one_way() -> None:
    files = python_files()
    assert len(files) > 60
    wrong = [line for path in files for line in offences(imports_of(path))]
    assert not wrong, "\n".join(wrong)


def test_the_check_finds_an_import_that_goes_up() -> None:
    """Negative control, with an import inside a function and one between stages."""
    up = Import(PACKAGE / "specs" / "recipe.py", 1, "edgeicl.store", typing_only=False)
    across = Import(PACKAGE / "emit" / "stage.py", 1, "edgeicl.quantize.stage", typing_only=False)
    down = Import(PACKAGE / "emit" / "stage.py", 1, "edgeicl.specs.recipe", typing_only=False)
    assert len(offences([up, across, down])) == 2


def test_imports_within_functions_are_seen(tmp_path: Path) -> None:
    source = tmp_path / "m.py"
    source.write_text("def f():\n    from edgeicl.store import Store\n    import torch\n")
    assert [(entry.line, entry.module) for entry in imports_of(source)] == [(2, "edgeicl.store"), (3, "torch")]


@pytest.mark.parametrize("part", ["specs", "numerics", "store", "errors", "bench", "report", "tasks"])
def test_parts_that_run_on_devices_never_import_torch(part: str) -> None:
    heavy = {"torch", "transformers", "accelerate"}
    # Rivals bring their own Python: edgeicl's reads what they are, and runs none of them.
    files = [
        path for path in python_files() if part_of(module_name(path)) == part and path.parent.name != "rivals"
    ]
    assert files
    wrong = [
        str(entry)
        for path in files
        for entry in imports_of(path)
        if entry.module.split(".")[0] in heavy and not entry.typing_only
    ]
    # The reader of hub data sets imports `datasets`, which is told apart from these by name.
    assert not wrong, "\n".join(wrong)


def test_the_runner_copied_to_devices_needs_only_numpy_and_onnxruntime() -> None:
    (decoder,) = (path for path in python_files() if path.name == "onnx_decoder.py")
    foreign = {entry.module.split(".")[0] for entry in imports_of(decoder)} - set(sys.stdlib_module_names)
    assert foreign == {"numpy", "onnxruntime"}


def fresh_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def test_import_edgeicl_loads_neither_torch_nor_transformers() -> None:
    done = fresh_python("-X", "importtime", "-c", "import edgeicl")
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert "edgeicl" in loaded  # negative control: the listing does name what is loaded
    assert not {name for name in loaded if name.split(".")[0] in ("torch", "transformers", "pydantic", "numpy")}


def test_bench_and_report_import_with_torch_and_transformers_blocked() -> None:
    modules = [
        module_name(path)
        for path in python_files()
        if part_of(module_name(path)) in ("bench", "report", "specs", "numerics", "store", "errors", "tasks")
        and path.name != "executorch_opt.py"  # a module of torch, imported in ExecuTorch's Python alone
    ] + [f"edgeicl.{name}" for name in ("cli", "runtime_commands", "bench_commands", "device_commands")]
    modules += ["edgeicl.models.onnx_decoder", "edgeicl.pipeline"]
    program = (
        "import sys, importlib\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'transformers', 'accelerate', 'datasets'):\n"
        "            raise ModuleNotFoundError(f'{name} is blocked')\n"
        "sys.meta_path.insert(0, Blocked())\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    done = fresh_python("-c", program)
    assert done.returncode == 0, done.stderr
    blocked = fresh_python("-c", program + "import torch\n")
    assert "torch is blocked" in blocked.stderr  # negative control: blocked it is


def test_help_answers_without_heavy_imports() -> None:
    done = fresh_python("-X", "importtime", "-m", "edgeicl", "--help")
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert not loaded & {"torch", "transformers", "pydantic", "numpy", "onnxruntime", "matplotlib", "scipy"}
