"""What several commands share: their arguments, what becomes of the free-form ones, JSON on stdout."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeicl.errors import Problem, SpecError
from edgeicl.usable_cores import usable_cores

if TYPE_CHECKING:
    from edgeicl.bench.devices.device import Device, Limits
    from edgeicl.specs.source import Source
    from edgeicl.specs.spec import Spec

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Recipe file, or the name of a shipped one.", show_default=False)
]
ArtifactArgument = Annotated[
    Path, typer.Argument(metavar="ARTIFACT", help="Folder made by `edgeicl compile`.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe; may be repeated."),
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", help="Target file or name, instead of the recipe's; may be repeated."),
]
TargetSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target-set",
        metavar="KEY=VALUE",
        help="Override a key of every target, such as budget.artifact_bytes=100MB.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ColumnsOption = Annotated[
    str, typer.Option(metavar="A,B,...", help="Names of the fields of a CSV or TSV file without a header.")
]
RenameOption = Annotated[
    list[str] | None, typer.Option(metavar="FROM=TO", help="Rename a column; may be repeated.")
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN=TEXT", help="Only rows whose column holds this text; may be repeated."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(min=1, help="As many as the target names and this computer has, unless given."),
]
AcceptNoiseOption = Annotated[
    bool, typer.Option("--accept-noise", help="Take figures that something speaks against, and say what.")
]
MostRoundsOption = Annotated[
    int, typer.Option(min=1, help="Where those of --rounds disagree more follow, up to so many in all.")
]
OnOption = Annotated[
    str,
    typer.Option(
        "--on", metavar="DEVICE", help="What runs it: local (this computer), cuda, ssh:HOST, adb, qemu:CORE."
    ),
]
CoresOption = Annotated[
    str | None, typer.Option(metavar="A,B-C", help="Run on these cores of the device alone, by number.")
]
MemoryOption = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Let the process have no more memory, such as 512MB.")
]
LikeOption = Annotated[
    str | None,
    typer.Option(
        metavar="TARGET",
        help="As many cores and as much memory as this target (threads, budget.resident_bytes), where "
        "--cores and --memory don't say.",
    ),
]
InstallOption = Annotated[
    bool,
    typer.Option("--install", help="With ssh:HOST, send onnxruntime and numpy along where it lacks them."),
]
SplitOption = Annotated[
    str | None, typer.Option(help="Split to read; hub: and builtin: need one, file: has none.")
]
LabelOption = Annotated[str, typer.Option(help="Column that holds the label.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Read at most this many examples.")]
DropLabelOption = Annotated[
    list[str] | None, typer.Option(help="Leave out rows with this label; may be repeated.")
]
MapLabelOption = Annotated[
    list[str] | None, typer.Option(metavar="FROM=TO", help="Rename a label; may be repeated.")
]


def columns_given(texts: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """Column -> text, from `COLUMN=TEXT` for every column or from plain texts in the columns' order.

    Raises:
        SpecError: neither, or not one text for every column.
    """
    named = dict(text.split("=", 1) for text in texts if text.split("=", 1)[0] in columns and "=" in text)
    if not named and len(texts) == len(columns):
        return dict(zip(columns, texts, strict=True))
    if len(named) == len(texts) == len(columns):
        return named
    examples = " ".join(f"{column}='...'" for column in columns)
    found = f"{len(texts)} text{'s' * (len(texts) != 1)}"
    if named:
        found += f", with names for {', '.join(named)}"
        others = [text.split("=", 1)[0] for text in texts if "=" in text and text.split("=", 1)[0] not in named]
        found += f"; no text is called {' or '.join(others)}" if others else ""
    expected = f"expected one text for each of {', '.join(columns)}"
    raise SpecError("run", [Problem("TEXT", found, expected)], next_step=f"give {examples}")


def source_given(
    data: str,
    *,
    command: str,
    option: str,
    split: str | None,
    label: str = "label",
    limit: int | None,
    drop_labels: Sequence[str] = (),
    map_labels: Sequence[str] = (),
    columns: str = "",
    rename: Sequence[str] = (),
    where: Sequence[str] = (),
    options: str | None = None,
    breakdown: str | None = None,
) -> Source:
    """The `Source` that `data`, given as `option`, and other options of `command` describe.

    A file's path starts at the current folder.

    Raises:
        SpecError: options that can't be used, or a file that isn't there; lists every problem.
    """
    from edgeicl.specs.loading import parse_spec
    from edgeicl.specs.source import Source

    keys = {"source": option, "drop_labels": "--drop-label", "map_labels": "--map-label"}
    problems: list[Problem] = []

    def pairs(flag: str, texts: Sequence[str]) -> dict[str, str]:
        problems.extend(Problem(flag, repr(text), "expected FROM=TO") for text in texts if "=" not in text)
        return dict(text.split("=", 1) for text in texts if "=" in text)

    fields = {
        "source": data,
        "split": split,
        "label": label,
        "limit": limit,
        "drop_labels": list(drop_labels),
        "map_labels": pairs("--map-label", map_labels),
        "columns": [name.strip() for name in columns.split(",")] if columns else [],
        "rename": pairs("--rename", rename),
        "where": pairs("--where", where),
        "options": options,
        "breakdown": breakdown,
    }
    try:
        source = parse_spec(json.dumps(fields), Source, source=command, base_folder=Path.cwd())
    except SpecError as error:
        for problem in error.problems:
            named = keys.get(problem.key, f"--{problem.key}")
            problems.append(replace(problem, key=named, line=None))
    if problems:
        next_step = f"correct these options; `edgeicl {command} --help` lists all"
        raise SpecError(command, problems, next_step=next_step)
    return source


def threads_for(artifact: Path, asked: int | None) -> int:
    """As many as asked for, else as the artifact's target runs on and this computer has.

    More than there are cores are refused: they wait for each other, and what is measured is that.
    """
    from edgeicl.bench.device_facts import usable_cores

    return threads_within(usable_cores(), artifact, asked)


def threads_on(device: Device, artifact: Path, asked: int | None) -> int:
    """The same for a device; one that is not here is asked for its cores when it is measured."""
    if device.limits.cores is not None:
        return threads_within(len(device.limits.cores), artifact, asked)
    if device.here:
        return threads_for(artifact, asked)
    return threads_within(asked or target_threads(artifact) or 1, artifact, asked)


def threads_within(cores: int, artifact: Path, asked: int | None) -> int:
    """At most `cores`. SpecError where more are asked for."""
    if asked is not None and asked > cores:
        problem = Problem("--threads", f"{asked} threads on {cores} cores", f"expected at most {cores}")
        raise SpecError("threads", [problem], next_step="ask for fewer, or leave --threads out")
    return asked or min(cores, target_threads(artifact) or cores)


def target_threads(artifact: Path) -> int | None:
    """Of the target that the artifact was made for; None where it doesn't say."""
    from edgeicl.specs.catalog import load_target

    target = artifact / "target.resolved.yaml"
    return load_target(str(target)).threads if target.is_file() else None


def limits_given(cores: str | None, memory: str | None) -> Limits:
    """`0,1` or `0-3`, and `512MB`. SpecError that lists what is neither."""
    from edgeicl.bench.devices.device import Limits
    from edgeicl.specs.byte_size import parse_byte_size

    problems = []
    numbers: list[int] = []
    for part in cores.split(",") if cores is not None else ():
        match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part.strip())
        if match is None or int(match[2] or match[1]) < int(match[1]):
            problems.append(
                Problem("--cores", f"found {part!r}", "expected numbers and ranges, such as 0,1 or 4-7")
            )
        else:
            numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    memory_bytes = None
    if memory is not None:
        try:
            found = parse_byte_size(int(memory) if memory.isdigit() else memory)
            memory_bytes = int(str(found))
            if memory_bytes <= 0:
                problems.append(Problem("--memory", f"found {memory!r}", "expected a size above 0"))
        except ValueError as error:
            problems.append(Problem("--memory", f"found {memory!r}", str(error)))
    if problems:
        raise SpecError("device", problems)
    return Limits(tuple(dict.fromkeys(numbers)) or None, memory_bytes)


def limits_like(name: str, given: Limits) -> Limits:
    """`given`, filled with what a target has: its first so many cores of this process, and its memory.

    Raises:
        SpecError: no such target, or one with more threads than this computer has cores.
    """
    from edgeicl.bench.devices.device import Limits
    from edgeicl.specs.catalog import load_target

    target = load_target(name)
    if target.provider != "cpu":
        found = f"{target.name} is a target for {target.provider}"
        raise SpecError("device", [Problem("--like", found, "expected one for cpu")])
    cores = given.cores
    if cores is None:
        usable = usable_cores() if hasattr(os, "sched_setaffinity") else ()
        if target.threads > len(usable):
            found = (
                f"{target.name} runs on {target.threads} threads, this computer has {len(usable)} cores for us"
            )
            raise SpecError("device", [Problem("--like", found, "expected at most as many, or --cores")])
        cores = usable[: target.threads]
    counts = "" if len(cores) == target.threads else f", on {len(cores)} cores instead of {target.threads}"
    return Limits(cores, given.memory_bytes or target.budget.resident_bytes, like=f"{target.name}{counts}")


def file_to_write(option: str, path: Path, *, command: str, new: bool = False) -> None:
    """SpecError, before any work is done for it, unless the file can be written there.

    `new`: and is not there yet.
    """
    folder = path.absolute().parent
    problem = None
    if path.is_dir() or not path.name:
        problem = Problem(option, f"{str(path)!r} is a folder", "expected the name of a file")
    elif not folder.is_dir():
        problem = Problem(option, f"{folder}: no such folder", "expected one that is there")
    elif not os.access(folder, os.W_OK):
        problem = Problem(option, f"{folder} can't be written", "expected a folder that can")
    elif new and path.exists():
        problem = Problem(option, f"{path} exists", "expected a file that doesn't")
    if problem is not None:
        raise SpecError(command, [problem], next_step="name another file")


def plain(spec: Spec) -> Any:
    """A spec as values that JSON can write."""
    return spec.model_dump(mode="json")


def print_json(value: object) -> None:
    """Prints `value` on stdout."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
