from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from edgeicl.errors import DataError
from edgeicl.specs.source import TextSource
from edgeicl.tasks.nli_family import split_of
from edgeicl.tasks.text_blocks import text_blocks
from edgeicl.tasks.text_source import read_texts
from tests.unit.byte_tokenizer import byte_tokenizer


def source(name: str, **more: object) -> TextSource:
    return TextSource.model_validate({"source": name, **more})


@pytest.mark.parametrize("compressed", [False, True])
def test_a_text_file_is_cut_at_its_separator(tmp_path: Path, compressed: bool) -> None:
    content = "One.\nStill one.<|end|>Two.<|end|>\n<|end|>Three."
    path = tmp_path / ("a.txt.gz" if compressed else "a.txt")
    path.write_bytes(gzip.compress(content.encode()) if compressed else content.encode())
    texts = read_texts(source("file:" + path.name, separator="<|end|>"), base_folder=tmp_path)
    assert texts == ["One.\nStill one.", "Two.", "Three."]


def test_a_table_has_a_document_a_row(tmp_path: Path) -> None:
    rows = [{"body": f"document {n}"} for n in range(9)] + [{"body": " "}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    whole = read_texts(source("file:a.jsonl", column="body"), base_folder=tmp_path)
    assert whole == [f"document {n}" for n in range(9)]
    some = read_texts(source("file:a.jsonl", column="body", limit=4), base_folder=tmp_path)
    assert len(some) == 4
    assert some == [text for text in whole if text in some]


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl line 1: found no text in column 'text'.*body"):
        read_texts(source("file:a.jsonl"), base_folder=tmp_path)


def test_text_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="can't be read as text"):
        read_texts(source("file:a.txt"), base_folder=tmp_path)
    (tmp_path / "b.txt").write_text("\n\n \n\n")
    with pytest.raises(DataError, match="found no document"):
        read_texts(source("file:b.txt"), base_folder=tmp_path)


def test_stories_of_the_family_stay_in_their_split(tmp_path: Path) -> None:
    texts = read_texts(source("builtin:nli", split="train", limit=20), base_folder=tmp_path)
    assert texts == read_texts(source("builtin:nli", split="train", limit=20), base_folder=tmp_path)
    assert len(set(texts)) == 20
    premises, conclusions = texts[0].split(" therefore ")
    found = {
        split_of(premise.strip(), conclusion.strip())
        for premise in premises.split(".")
        for conclusion in conclusions.strip().split(".")
    }
    assert "train" in found


def test_blocks_hold_every_token_in_order() -> None:
    tokenizer = byte_tokenizer()
    blocks = text_blocks(tokenizer, ["abc", "defgh"], block_tokens=4)
    together = [i for text in ("abc", "defgh") for i in tokenizer.encode(text).ids]
    assert np.array_equal(blocks.ravel(), together[: blocks.size])
    assert blocks.shape == (len(together) // 4, 4)
    with pytest.raises(DataError, match="expected at least one block of 99"):
        text_blocks(tokenizer, ["abc"], block_tokens=99)
