"""Rows of a data file: JSONL, CSV, TSV or Parquet, plain or gzip, told apart by the file's name."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from edgeicl.errors import DataError

Row = tuple[str, Mapping[str, Any]]

UNNAMED = "..."

_FORMATS = {".jsonl": "JSONL", ".ndjson": "JSONL", ".csv": "CSV", ".tsv": "TSV", ".parquet": "Parquet"}


def file_rows(path: Path, *, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Where each row stands (`FILE line N`) and its values, in the order of the file.

    `columns` names the fields of a CSV or TSV file that has no header, or whose header is wrong; one "..."
    among them stands for any number of fields that have no name. CSV follows RFC 4180. TSV has no quoting, as
    GLUE writes it. Blank lines hold no row. UTF-8, with or without a byte-order mark. An object inside a row
    becomes columns of their own: `{"target": {"word": "it"}}` has the column `target.word`.
    """
    name = path.name.lower().removesuffix(".gz")
    format_name = _FORMATS.get(Path(name).suffix)
    if format_name is None:
        raise DataError(
            f"{path}: found the extension '{Path(name).suffix}'; "
            f"expected one of {', '.join(_FORMATS)}, each plain or with .gz"
        )
    if columns and format_name not in ("CSV", "TSV"):
        raise DataError(
            f"{path}: found `columns` for {format_name}, whose rows name their own; expected CSV or TSV",
            next_step="leave `columns` out; `rename` gives columns other names",
        )
    try:
        if not path.is_file():
            raise DataError(
                f"{path}: found no such file", next_step="check `source:`; paths start at the recipe's folder"
            )
        if format_name == "Parquet":
            yield from _parquet(path)
        elif format_name == "JSONL":
            yield from _jsonl(path)
        else:
            yield from _separated(path, tabs=format_name == "TSV", columns=columns)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: can't be read as {format_name}: {error}",
            next_step="check the file's permissions and that it is whole; text must be UTF-8",
        ) from error


def _binary(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path) -> Iterator[str]:
    with _binary(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        yield from text


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{where}: found {_shown(line)}; expected one JSON object a line: {error}"
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: found {_shown(line)}; expected a JSON object with named columns")
        yield where, dict(_flat(row))


def _separated(path: Path, *, tabs: bool, columns: Sequence[str]) -> Iterator[Row]:
    lines = _lines(path)
    reader = (
        csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        if tabs
        else csv.reader(lines, strict=True)
    )
    header: list[str] | None = list(columns) or None
    try:
        for fields in reader:
            if not fields:
                continue
            where = f"{path} line {reader.line_num}"
            if header is None:
                header = fields
                if len(set(header)) != len(header):
                    raise DataError(
                        f"{where}: found the columns {header}; expected distinct names in the first line"
                    )
            else:
                yield where, _named(fields, header, where)
    except csv.Error as error:
        raise DataError(
            f"{path} line {reader.line_num}: can't be read as {'TSV' if tabs else 'CSV'}: {error}"
        ) from error


def _named(fields: Sequence[str], names: Sequence[str], where: str) -> dict[str, str]:
    """The fields by their names; those where `names` has "..." are left out."""
    if UNNAMED in names:
        place = names.index(UNNAMED)
        after = len(names) - place - 1
        enough, many = len(fields) >= place + after, f"at least {place + after}"
        names = [*names[:place], *names[place + 1 :]]
        fields = [*fields[:place], *fields[len(fields) - after :]] if enough else fields
    else:
        enough, many = len(fields) == len(names), str(len(names))
    if not enough:
        raise DataError(
            f"{where}: found {len(fields)} fields; expected {many}: {', '.join(names)}",
            next_step="name the fields of a file without a header, or with a wrong one, in `columns:` of the "
            f"source; '{UNNAMED}' there stands for any number of fields",
        )
    return dict(zip(names, fields, strict=True))


def _flat(row: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Columns of objects inside objects, with dots between the names."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with _binary(path) as stream:
            table = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(stream.read()))
            number = 0
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", dict(_flat(row))
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: can't be read as Parquet: {error}") from error


def _shown(line: str) -> str:
    text = line.strip()
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
