"""The package's files and what each imports, function-level imports and TYPE_CHECKING blocks included."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "edgeicl"


@dataclass(frozen=True)
class Import:
    """One import of `module`, at a line of a file; `typing_only` inside `if TYPE_CHECKING:`."""

    path: Path
    line: int
    module: str
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.path.relative_to(REPOSITORY)}:{self.line}: imports {self.module}"


def python_files() -> list[Path]:
    """Every Python file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """`edgeicl/specs/recipe.py` -> `edgeicl.specs.recipe`."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> list[Import]:
    """All imports of a file; `from edgeicl import errors` counts as `edgeicl.errors`."""
    tree = ast.parse(path.read_text(), filename=str(path))
    typing_lines = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for line in range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            base = node.module or ""
            inner = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if _is_module(name) else base for name in inner]
        else:
            continue
        found += [Import(path, node.lineno, name, node.lineno in typing_lines) for name in dict.fromkeys(names)]
    return found


def _is_module(name: str) -> bool:
    path = REPOSITORY / Path(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
