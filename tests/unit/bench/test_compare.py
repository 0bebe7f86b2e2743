"""Rounds and ratios with entrants whose every figure is known; artifacts and checkpoints that don't fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

import edgeicl.bench.rounds as rounds_module
from edgeicl.bench.artifact import open_artifact
from edgeicl.bench.compare import noise, paired, prepare
from edgeicl.bench.entrants import ArtifactEntrant, describe, entrants, round_of
from edgeicl.bench.kept_rounds import KeptRounds
from edgeicl.bench.rivals.checkpoint import write_random_checkpoint
from edgeicl.bench.rounds import run_rounds
from edgeicl.bench.workload import Workload
from edgeicl.errors import BenchError, DataError, IntegrityError, SpecError
from edgeicl.specs.comparison import Contestant, Pairing, Ratio
from edgeicl.specs.quant_plan import BY_ROW, Format
from edgeicl.store import Store
from edgeicl.stored import stored
from tests.unit.bench.conftest import TINY, build_artifact, tiny_task, tiny_tokenizer

Make = Callable[..., Path]
WORKLOAD = Workload(1, 4, 2, repetitions=1, warmup_repetitions=0)


def run_of(decode_ms: float, *, peak: int = 100) -> dict[str, Any]:
    return {
        "load_ms": 1.0, "first_token_ms": [10.0], "decode_ms": [[decode_ms, decode_ms]],
        "baseline_rss_bytes": 50, "peak_rss_bytes": peak,
        "bandwidth": {"memory": {"add": 3e9, "copy": 4e9}, "token": {"add": 8e9}},
    }  # fmt: skip


def contestant(name: str, decode_ms: list[float], *, peak: int) -> Contestant:
    rounds = tuple(round_of(run_of(ms, peak=peak), 4) for ms in decode_ms)
    return Contestant(name=name, description="", file_bytes=peak // 10, rounds=rounds)


def test_ratios_are_of_pairs() -> None:
    found = paired(contestant("a", [2.0, 2.0], peak=100), contestant("b", [8.0, 4.0], peak=400))
    assert found.decode is not None
    assert found.decode.values == (4.0, 2.0)
    assert found.decode.median == 3.0
    assert (found.peak_rss.median, found.file_bytes) == (0.25, 0.25)
    assert (found.prefill.median, found.first_token.median) == (1.0, 1.0)


def test_the_share_of_the_ceiling_on_paper(make_artifact: Make) -> None:
    (entry,), notes = entrants([make_artifact()], WORKLOAD)
    assert notes == ()
    entry.runs = [run_of(2.0)]
    found = entry.contestant()
    # Keys and values of 2 layers, 32 wide, in 4 bytes, at 4 to 6 positions: 5.5 in the mean.
    assert found.bytes_per_token == entry.artifact.weight_bytes_per_token + round(5.5 * 512)
    # 500 tokens/s; the best probe read 8 GB/s.
    assert found.ceiling_shares == (pytest.approx(500 * found.bytes_per_token / 8e9),)


class Scripted:
    """An entrant that writes down its turns, and fails at one of them."""

    def __init__(self, name: str, turns: list[str], *, fails_at: int = 99, interrupted_at: int = 99) -> None:
        self.name, self.turns, self.fails_at, self.interrupted_at = name, turns, fails_at, interrupted_at
        self.runs: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        if self.turns.count(self.name) + 1 == self.interrupted_at:
            raise KeyboardInterrupt
        self.turns.append(self.name)
        if self.turns.count(self.name) == self.fails_at:
            raise BenchError(f"{self.name} fell over")
        return {"turn": len(self.turns)}


def test_rounds_alternate_in_order_and_a_rival_that_fails_is_dropped() -> None:
    turns: list[str] = []
    ours: Any = [Scripted("a", turns)]
    theirs: Any = [Scripted("b", turns, fails_at=2), Scripted("c", turns)]
    course = run_rounds(ours, theirs, 3)
    assert turns == ["a", "b", "c", "c", "b", "a", "a", "c"]
    assert [(entry.name, entry.reason) for entry in course.failed] == [("b", "b fell over")]
    assert [entry.name for entry in theirs] == ["c"]
    assert [ours[0].runs, theirs[0].runs] == [
        [{"turn": n} for n in turns_of] for turns_of in ((1, 6, 7), (3, 4, 8))
    ]
    assert course.notes == ()


@pytest.mark.parametrize(("doubtful", "rounds"), [(0, 2), (1, 3), (9, 5)])
def test_rounds_follow_while_they_disagree(doubtful: int, rounds: int) -> None:
    """At least two, at most five."""
    turns: list[str] = []
    ours: Any = [Scripted("a", turns)]
    theirs: Any = [Scripted("b", turns)]

    def doubts() -> list[str]:
        return ["far apart"] * (len(ours[0].runs) < 2 + doubtful)

    run_rounds(ours, theirs, 2, most_rounds=5, doubts=doubts)
    assert [len(ours[0].runs), len(theirs[0].runs)] == [rounds, rounds]


def sides(turns: list[str], *, b_fails_at: int = 99, interrupted_at: int = 99) -> tuple[Any, Any]:
    """Ours is a; b and c are theirs."""
    ours = [Scripted("a", turns, interrupted_at=interrupted_at)]
    return ours, [Scripted("b", turns, fails_at=b_fails_at), Scripted("c", turns)]


def test_rounds_outlive_an_interrupt(tmp_path: Path) -> None:
    """The first ones, as long as nobody failed: that is tried again. What has ended is forgotten."""
    turns: list[str] = []
    ours, theirs = sides(turns, b_fails_at=2, interrupted_at=4)
    with pytest.raises(KeyboardInterrupt), KeptRounds(tmp_path, "it") as kept:
        run_rounds(ours, theirs, 4, kept=kept)
    assert turns == ["a", "b", "c", "c", "b", "a", "a", "c", "c"]
    assert stored(tmp_path)[0].finished is False

    turns = []
    ours, theirs = sides(turns)
    with KeptRounds(tmp_path, "it") as kept:
        course = run_rounds(ours, theirs, 3, kept=kept)
    assert turns == ["c", "b", "a", "a", "b", "c"]
    assert course.failed == []
    assert [one.runs for one in (*ours, *theirs)] == [
        [{"turn": 1}, {"turn": 3}, {"turn": 4}],
        [{"turn": 2}, {"turn": 2}, {"turn": 5}],
        [{"turn": 3}, {"turn": 1}, {"turn": 6}],
    ]
    (note,) = course.notes
    assert note.startswith("1 round was measured before an interruption, from 20")
    assert stored(tmp_path) == []


def test_rounds_of_a_run_are_not_another_runs(tmp_path: Path) -> None:
    """Fewer are asked for than are kept: the others are of no use."""
    turns: list[str] = []
    with KeptRounds(tmp_path, "it") as kept:
        for run in (0, 1):
            run_rounds(*sides(turns), 2, kept=kept, run=run)
        ours, theirs = sides(turns)
        assert len(turns) == 12
        assert run_rounds(ours, theirs, 1, kept=kept, run=1).resumed != []
        assert [one.runs for one in ours] == [[{"turn": 7}]]
        assert len(turns) == 12
        run_rounds(*sides(turns), 1, kept=kept, run=2)
        assert len(turns) == 15


def test_it_ends_when_all_rivals_have_failed() -> None:
    turns: list[str] = []
    ours: Any = [Scripted("a", turns)]
    theirs: Any = [Scripted("b", turns, fails_at=1)]
    course = run_rounds(ours, theirs, 5, most_rounds=9, doubts=lambda: ["far apart"])
    assert turns == ["a", "b"]
    assert [entry.name for entry in course.failed] == ["b"]


def test_rounds_of_other_processes_are_another_comparison(make_artifact: Make) -> None:
    artifact = make_artifact()

    def about(**changed: int) -> dict[str, Any]:
        (entry,), _ = entrants([artifact], replace(WORKLOAD, **changed))
        return entry.about

    assert about() == about()
    others = [about(threads=2), about(prompt_tokens=5), about(decode_tokens=3), about(least_s=1)]
    assert about() not in others
    assert len({json.dumps(each) for each in others}) == len(others)


def test_another_comparison_finds_no_rounds_and_the_same_one_waits(tmp_path: Path) -> None:
    with KeptRounds(tmp_path, ["a", 1]) as kept:
        kept.keep(0, 0, {"other_work": None})
        with KeptRounds(tmp_path, ["a", 2]) as other:
            assert other.round(0, 0) is None
            assert (kept.round(1, 0), kept.round(0, 1)) == (None, None)
            assert (kept.round(0, 0) or {})["other_work"] is None
        with (
            pytest.raises(BenchError, match="the same comparison runs already"),
            KeptRounds(tmp_path, ["a", 1]),
        ):
            pass


def test_noise_is_one_note_however_many_ratios_are_noisy() -> None:
    def pairing(rival: str, low: float, high: float) -> Pairing:
        ratio = Ratio(median=2.0, low=low, high=high, confidence=0.95, values=(low, high))
        return Pairing(
            artifact="a", rival=rival, first_token=ratio, prefill=ratio, decode=ratio, file_bytes=1.0,
            peak_rss=ratio,
        )  # fmt: skip

    assert noise([pairing("calm", 1.9, 2.1)]) == ()
    (note,) = noise([pairing("calm", 1.9, 2.1), pairing("b", 1.5, 2.5), pairing("c", 1.0, 3.0)])
    assert "on 4 of 6 ratios of speed, most on prefill of a to c, between 1.00 and 3.00" in note


def test_one_round_is_a_doubt() -> None:
    found = paired(contestant("a", [2.0], peak=100), contestant("b", [8.0], peak=400))
    assert noise([found]) == ("one round only: how far times vary is unknown",)


def test_an_artifact_that_fails_ends_it(make_artifact: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,), _ = entrants([make_artifact()], WORKLOAD)

    def fail(_: ArtifactEntrant) -> None:
        raise BenchError("no memory")

    monkeypatch.setattr(ArtifactEntrant, "run", fail)
    theirs: Any = [Scripted("b", [])]
    with pytest.raises(BenchError, match="no memory"):
        run_rounds([entry], theirs, 1)


def test_lengths_are_cut_for_all_alike_and_names_stay_apart(make_artifact: Make) -> None:
    artifact = make_artifact()
    found, notes = entrants([artifact, artifact], Workload(1, 100, 8))
    assert {entry.workload.prompt_tokens for entry in found} == {56}
    assert [entry.name for entry in found] == [str(artifact)] * 2
    assert any("prompt 100 -> 56" in note for note in notes)


def refused(artifact: Path, tmp_path: Path, *, rival: str = "hf-fp32", model: Path | None = None) -> None:
    prepare([artifact], WORKLOAD, rivals=[rival], model=model, store=Store(tmp_path / "store"))


def test_an_unknown_rival(make_artifact: Make, tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"no rival 'optimum'; did you mean 'optimum-int8'\? allowed: optimum-int8"
    ):
        refused(make_artifact(), tmp_path, rival="optimum")


def test_a_damaged_artifact_is_refused_first(make_artifact: Make, tmp_path: Path) -> None:
    artifact = make_artifact()
    (artifact / "config.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"config\.json: found"):
        refused(artifact, tmp_path)


def test_a_model_folder_without_a_model(make_artifact: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no model folder: found no config\.json"):
        refused(make_artifact(), tmp_path, model=tmp_path)


def test_a_checkpoint_of_another_shape(make_artifact: Make, tmp_path: Path) -> None:
    artifact = make_artifact()
    config = json.loads((artifact / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(DataError, match=r"another shape(?s:.*)layers: found 3, the artifact has 2"):
        refused(artifact, tmp_path, model=tmp_path)


def test_random_checkpoints_are_the_same_every_time(tmp_path: Path) -> None:
    config = {
        "model_type": "opt", "hidden_size": 8, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
        "vocab_size": 10, "max_position_embeddings": 6,
    }  # fmt: skip
    first = load_file(write_random_checkpoint(tmp_path / "1", config) / "model.safetensors")
    second = load_file(write_random_checkpoint(tmp_path / "2", config) / "model.safetensors")
    assert {name: value.tolist() for name, value in first.items()} == {
        name: value.tolist() for name, value in second.items()
    }
    assert first["model.decoder.embed_positions.weight"].shape == (8, 8)
    assert first["model.decoder.layers.0.fc1.weight"].shape == (16, 8)
    assert first["model.decoder.layers.0.final_layer_norm.weight"].tolist() == [1.0] * 8
    # Parameters on paper: 8 x 10 tokens, 8 x 8 positions, 4 x (64 + 8), 128 + 16, 128 + 8, 3 norms of 16.
    assert sum(value.size for value in first.values()) == 80 + 64 + 4 * 72 + 144 + 136 + 48


def test_a_copy_for_prompts_is_told(tmp_path: Path) -> None:
    artifact = build_artifact(
        tmp_path / "two", TINY, Format(bits=4, block_size=32), tiny_tokenizer(), tiny_task({"a": "yes"}),
        table=Format(bits=8, block_size=32), prompt_format=BY_ROW,
    )  # fmt: skip
    told = describe(open_artifact(artifact))
    assert told == "tiny for test: int4/block32, int8/block32, layers once more in int8/row for prompts"


def test_what_others_take_is_looked_at_before_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.5, None, 0.02])
    monkeypatch.setattr(rounds_module, "settled_share", lambda: next(shares))
    ours: Any = [Scripted("a", [])]
    theirs: Any = [Scripted("b", [])]
    assert run_rounds(ours, theirs, 3).other_work == [0.5, 0.02]
