"""Plain text, document by document, from a `TextSource`.

A .txt file (or .txt.gz) is cut at the source's separator. The other formats have a document a row. The
built-in family has stories: premises, then what follows from them, in texts that ask nothing.
"""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from edgeicl.errors import DataError
from edgeicl.specs.local_path import local_path
from edgeicl.specs.nearest import one_of
from edgeicl.specs.source import TextSource
from edgeicl.tasks.file_source import file_rows
from edgeicl.tasks.hub_source import hub_rows
from edgeicl.tasks.nli_stories import stories

_BUILTIN_DOCUMENTS = 2000


def read_texts(source: TextSource, *, base_folder: Path) -> list[str]:
    """The documents of `source`, in its order; `limit` samples them by `seed`.

    Raises:
        DataError: a missing file, split or column, or no document at all.
    """
    kind, _, name = source.source.partition(":")
    if kind == "builtin":
        return list(islice(stories(source.split or "", source.seed), source.limit or _BUILTIN_DOCUMENTS))
    path = local_path(name, base_folder)
    if kind == "file" and path.name.lower().removesuffix(".gz").endswith(".txt"):
        documents = [part for part in _text(path).split(source.separator) if part.strip()]
    else:
        documents = list(_column(source, name, base_folder))
    if not documents:
        raise DataError(f"{source.source}: found no document; expected at least one")
    if source.limit is None or source.limit >= len(documents):
        return documents
    kept = random.Random(source.seed).sample(range(len(documents)), source.limit)
    return [documents[index] for index in sorted(kept)]


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.name.lower().endswith(".gz") else content).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: can't be read as text: {error}",
            next_step="check the file's permissions and that it is whole; text must be UTF-8",
        ) from error


def _column(source: TextSource, name: str, base_folder: Path) -> Iterator[str]:
    rows = (
        hub_rows(name, split=source.split, label="", base_folder=base_folder)
        if source.split is not None
        else file_rows(local_path(name, base_folder))
    )
    for where, row in rows:
        text = row.get(source.column)
        if not isinstance(text, str):
            raise DataError(
                f"{where}: found no text in column '{source.column}'; {one_of(source.column, row)}",
                next_step="name the column that holds the documents in `column:` of the source",
            )
        if text.strip():
            yield text
