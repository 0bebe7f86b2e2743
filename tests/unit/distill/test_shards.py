"""Scoring in shards: the same bits for any number of processes, nothing done twice, nothing missing unseen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from transformers import OPTForCausalLM

from edgeicl.distill import shards
from edgeicl.distill.joined_tensors import Part, write_joined
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.scoring import score_queries
from edgeicl.distill.shards import Shard, parts_of, score_shards, shards_of, share_of
from edgeicl.errors import IntegrityError
from edgeicl.store import ALONE, SingleProcess

QUERIES = [[3 + n % 50, 7 + n % 11, *range(n % 5)] for n in range(150)]
CONTEXTS = {"without": [0], "seed_0": [0, *range(60, 80)], "seed_1": [0, *range(80, 95)]}
TOKENS = [(40,), (50,)]


class Process(SingleProcess):
    """One of several, run one after the other: what the writer found at its start holds for all."""

    def __init__(self, index: int, count: int, said: list[Any]) -> None:
        self.index, self.count, self.is_writer, self._said = index, count, index == 0, said

    def from_writer(self, value: Any) -> Any:
        if self.is_writer:
            self._said.append(value)
        return self._said[-1]


@pytest.fixture(scope="module")
def reader(opt: Callable[..., OPTForCausalLM]) -> LabelReader:
    return LabelReader(opt(seed=1))


def scored(reader: LabelReader, kept: Path, *, processes: int = 1) -> dict[str, np.ndarray]:
    """The joined scores of all contexts."""
    said: list[Any] = []
    for index in range(processes):
        score_shards(
            lambda: reader,
            QUERIES,
            TOKENS,
            contexts=CONTEXTS,
            over="verbalizers",
            stored=np.float32,
            kept=kept,
            workers=Process(index, processes, said) if processes > 1 else ALONE,
            description="test",
        )
    write_joined(kept / "joined.safetensors", parts_of(kept, shards_of(CONTEXTS, len(QUERIES))))
    return load_file(kept / "joined.safetensors")


def test_any_number_of_processes_gives_the_same_bits(reader: LabelReader, tmp_path: Path) -> None:
    alone = scored(reader, tmp_path / "1")
    assert {name: values.shape for name, values in alone.items()} == dict.fromkeys(CONTEXTS, (150, 2))
    for count in (2, 4, 20):  # 20: more than there are shards
        together = scored(reader, tmp_path / str(count), processes=count)
        assert all(np.array_equal(alone[name], together[name]) for name in CONTEXTS)
    for name, before in CONTEXTS.items():
        whole = score_queries(reader, QUERIES, TOKENS, before=before)
        assert np.abs(alone[name] - whole).max() < 1e-5
    assert np.abs(alone["seed_0"] - alone["seed_1"]).max() > 1e-2  # negative control


def test_what_a_killed_process_left_is_not_scored_again(
    reader: LabelReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scored(reader, tmp_path / "whole")
    kept = tmp_path / "killed"
    real, done = shards.keep_file, 0

    def dies(path: Path, write: Callable[[Path], None]) -> None:
        nonlocal done
        if done == 4:
            raise KeyboardInterrupt
        done += 1
        real(path, write)

    monkeypatch.setattr(shards, "keep_file", dies)
    with pytest.raises(KeyboardInterrupt):
        scored(reader, kept)
    monkeypatch.setattr(shards, "keep_file", real)
    times = {path: path.stat().st_mtime_ns for path in kept.rglob("*.safetensors")}
    assert len(times) == 4
    resumed = scored(reader, kept, processes=2)  # with another number of processes, too
    assert all(np.array_equal(whole[name], resumed[name]) for name in CONTEXTS)
    assert all(path.stat().st_mtime_ns == at for path, at in times.items())

    def never() -> LabelReader:
        raise AssertionError("was loaded with nothing to do")

    score_shards(
        never,
        QUERIES,
        TOKENS,
        contexts=CONTEXTS,
        over="verbalizers",
        stored=np.float32,
        kept=kept,
        workers=ALONE,
        description="test",
    )


def test_a_shard_that_never_arrived_is_an_error(reader: LabelReader, tmp_path: Path) -> None:
    scored(reader, tmp_path)
    everything = shards_of(CONTEXTS, len(QUERIES))
    (tmp_path / everything[4].file).unlink()
    with pytest.raises(IntegrityError, match=r"seed_0.00000064.safetensors: found no whole file"):
        parts_of(tmp_path, everything)


@given(queries=st.integers(0, 400), contexts=st.integers(1, 5), count=st.integers(1, 9))
def test_shares_are_all_shards_each_once_and_nearly_equal(queries: int, contexts: int, count: int) -> None:
    everything = shards_of([f"seed_{n}" for n in range(contexts)], queries)
    covered = [place for shard in everything for place in range(shard.start, shard.stop)]
    assert covered == list(range(queries)) * contexts
    shares = [share_of(everything, Process(index, count, [])) for index in range(count)]
    assert [shard for share in shares for shard in share] == everything
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_tensors_are_joined_part_by_part(tmp_path: Path, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(rows, 3)).astype(dtype) for rows in (2, 1, 5)]
    for index, values in enumerate(arrays):
        save_file({"a": values, "b": values[:1]}, tmp_path / f"{index}")
    parts = {name: [Part(tmp_path / f"{index}", name) for index in range(3)] for name in ("a", "b")}
    write_joined(tmp_path / "joined", parts)
    found = load_file(tmp_path / "joined")
    assert found["a"].dtype == dtype
    assert np.array_equal(found["a"], np.concatenate(arrays))
    assert np.array_equal(found["b"], np.concatenate([values[:1] for values in arrays]))


def test_a_shards_file_says_where_it_begins() -> None:
    assert Shard("seed_3", 64, 128).file == "seed_3/00000064.safetensors"
