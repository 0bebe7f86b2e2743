"""What stands before every query of an artifact: plain demonstrations, or vectors that stand for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

PREFIX_SOURCE = "prefix_source.safetensors"


def write_prefix_source(path: Path, sets: Sequence[NDArray[Any]]) -> None:
    """Writes what each prefix is made from, one for each demonstration set.

    Token ids are int64 [P], with the tokenizer's leading tokens; vectors are float32 [P, H], in the place of
    token embeddings. Either takes the positions from 0 on, and a query follows without leading tokens.
    """
    from safetensors.numpy import save_file

    save_file({str(number): values for number, values in enumerate(sets)}, path)


def read_prefix_source(path: Path) -> list[NDArray[Any]]:
    """What `write_prefix_source` wrote, in order."""
    from safetensors.numpy import load_file

    found = load_file(path)
    return [found[str(number)] for number in range(len(found))]
