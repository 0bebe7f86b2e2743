"""Where data comes from: labelled examples, and plain text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from edgeicl.specs import builtin_names
from edgeicl.specs.local_path import local_path
from edgeicl.specs.spec import Spec


def check_file(path: Path) -> None:
    """ValueError unless `path` is a file."""
    if not path.is_file():
        found = f"{path.absolute()} is a folder" if path.is_dir() else f"no file {path.absolute()}"
        raise ValueError(f"{found}; expected a data file")


class Data(Spec):
    """A place that data is read from."""

    source: str = Field(
        pattern=r"^(file|hub|builtin):.+", description="`file:PATH`, `hub:DATASET` or `builtin:nli[/TASK]`."
    )
    split: str | None = Field(
        None,
        validate_default=True,
        description="Split to read, of `hub:` and `builtin:`; a `file:` has none.",
    )

    @field_validator("source")
    @classmethod
    def _data_there(cls, source: str, info: ValidationInfo) -> str:
        """Files only where the context says where paths start: a recipe can be read without its data."""
        kind, _, name = source.partition(":")
        if kind == "builtin":
            builtin_names.check_task(name)
        if kind == "file" and info.context is not None:
            check_file(local_path(name, info.context["base_folder"]))
        return source

    @field_validator("split")
    @classmethod
    def _split_where_it_means_something(cls, split: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("source", "").partition(":")[0]
        if kind == "file" and split is not None:
            raise ValueError(f"{split!r}; expected none: a `file:` has no splits (`split: null` takes it out)")
        if kind in ("hub", "builtin") and split is None:
            raise ValueError(f"missing; expected the split of `{kind}:` to read, such as train or test")
        if kind == "builtin" and split is not None:
            builtin_names.check_split(split)
        return split

    def __str__(self) -> str:
        return self.source if self.split is None else f"{self.source} ({self.split})"


class Source(Data):
    """Where labelled examples come from."""

    columns: tuple[str, ...] = Field(
        (),
        description="Names of the fields of a CSV or TSV file that has no header, or a wrong one, such as "
        "`[label, text]`; one `...` stands for any number of fields.",
    )
    rename: dict[str, str] = Field(
        default_factory=dict, description="Column in the data -> its name in the pattern."
    )
    label: str = Field("label", description="Column that holds the label, after `rename`.")
    options: str | None = Field(
        None, description="Column with a row's own list of answers; else every label is one (MetaICL)."
    )
    breakdown: str | None = Field(
        None, description="Column of evaluation data by whose values accuracy is told apart."
    )
    drop_labels: tuple[str, ...] = Field((), description="Rows with these labels are left out.")
    map_labels: dict[str, str] = Field(
        default_factory=dict, description="Label in the data -> label of the verbalizers."
    )
    where: dict[str, str] = Field(
        default_factory=dict,
        description="Only rows whose columns hold these texts: column of the data -> text.",
    )
    limit: int | None = Field(
        None, ge=1, description="Use at most this many rows, drawn by `seed` after leaving others out."
    )
    seed: int = Field(0, description="Seed of `limit`, and of a built-in source.")

    @field_validator("columns")
    @classmethod
    def _columns_of_a_file(cls, columns: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if columns and not info.data.get("source", "file:").startswith("file:"):
            raise ValueError(f"{', '.join(columns)}; expected none: only a `file:` may lack a header")
        if len(set(columns)) != len(columns):
            raise ValueError(f"{', '.join(columns)}; expected distinct names")
        return columns

    @field_validator("rename")
    @classmethod
    def _new_names_distinct(cls, rename: dict[str, str]) -> dict[str, str]:
        if len(set(rename.values())) != len(rename):
            raise ValueError(f"two columns become one of {', '.join(rename.values())}; expected distinct names")
        return rename


SEED = "{seed}"


class SeededSource(Source):
    """A source for each demonstration seed: `{seed}` in its path or split stands for the seed."""

    @field_validator("source")
    @classmethod
    def _data_there(cls, source: str, info: ValidationInfo) -> str:
        """Which files must be there only the seeds tell: `for_seed` looks."""
        return source

    def for_seed(self, seed: int) -> Source:
        """The seed's own source."""
        values = self.model_dump()
        for key in ("source", "split"):
            values[key] = values[key] and values[key].replace(SEED, str(seed))
        return Source.model_validate(values)

    def check_files(self, seeds: Iterable[int], base_folder: Path) -> None:
        """ValueError for the first seed whose file isn't there."""
        for seed in seeds:
            kind, _, name = self.for_seed(seed).source.partition(":")
            if kind == "file":
                check_file(local_path(name, base_folder))


class TextSource(Data):
    """Where plain text comes from, for language modelling."""

    column: str = Field("text", description="Column that holds a document; a .txt file has none.")
    separator: str = Field("\n\n", description="What stands between the documents of a .txt file.")
    limit: int | None = Field(None, ge=1, description="Use at most this many documents, drawn by `seed`.")
    seed: int = Field(0, description="Seed of `limit`, and of a built-in source.")
