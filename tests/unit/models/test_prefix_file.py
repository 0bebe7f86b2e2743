"""Key/value rows are read as they were written, by numpy alone, and nothing else is taken for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeicl.models.prefix_file import prefix_tokens, read_prefix, write_prefix


def rows(count: int, dtype: type = np.float32) -> dict[str, np.ndarray]:
    random = np.random.default_rng(count)
    names = [f"past_key_values.{layer}.{kind}" for layer in range(11) for kind in ("key", "value")]
    return {name: random.normal(size=(2, count, 4)).astype(dtype) for name in names}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_reads_what_was_written_in_order(dtype: type, tmp_path: Path) -> None:
    sets = [rows(count, dtype) for count in (3, 5, 1, *range(2, 11))]  # more than ten: "10" sorts before "2"
    ids = [np.arange(count) for count in (3, 5, 1, *range(2, 11))]
    write_prefix(tmp_path / "p.safetensors", sets, ids)
    found, found_ids = read_prefix(tmp_path / "p.safetensors")
    assert [prefix_tokens(each) for each in found] == [3, 5, 1, *range(2, 11)]
    for made, read, tokens, read_tokens in zip(sets, found, ids, found_ids, strict=True):
        assert made.keys() == read.keys()
        for name, values in made.items():
            np.testing.assert_array_equal(read[name], values)
            assert read[name].dtype == dtype
        np.testing.assert_array_equal(read_tokens, tokens)


def test_the_library_reads_the_same(tmp_path: Path) -> None:
    write_prefix(tmp_path / "p.safetensors", [rows(3)], [None])
    by_library = load_file(tmp_path / "p.safetensors")
    (found,), (ids,) = read_prefix(tmp_path / "p.safetensors")
    assert ids is None
    assert {f"0.{name}" for name in found} == by_library.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, by_library[f"0.{name}"])


@pytest.mark.parametrize("content", [b"", b"\x02\0\0\0\0\0\0\0{]", b"\xff" * 64])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(ValueError, match="can't be read as key/value rows"):
        read_prefix(tmp_path / "p")


@pytest.mark.parametrize(
    ("names", "message"), [(["weight"], "holds a tensor 'weight'"), (["1.a"], r"holds the sets \[1\]")]
)
def test_other_tensors_are_refused(names: list[str], message: str, tmp_path: Path) -> None:
    save_file({name: np.zeros(2, np.float32) for name in names}, tmp_path / "p")
    with pytest.raises(ValueError, match=message):
        read_prefix(tmp_path / "p")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    write_prefix(tmp_path / "p", [rows(3)], [None])
    (tmp_path / "p").write_bytes((tmp_path / "p").read_bytes()[:-40])
    with pytest.raises(ValueError, match="can't be read as key/value rows"):
        read_prefix(tmp_path / "p")
