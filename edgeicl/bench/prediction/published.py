"""Published decode and prefill speeds of phones and boards: facts, each with its source."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("published_speeds.csv")


@dataclass(frozen=True)
class PublishedSpeed:
    """One measurement of somebody's. Bytes that a token reads are estimated from the model's shape."""

    device: str
    soc: str
    memory_bytes_per_second: float
    i8mm: bool
    engine: str
    model: str
    bits: float
    token_bytes: float
    decode_tokens_per_second: float
    prefill_tokens_per_second: float | None
    body_parameters: float | None
    source: str

    @property
    def bandwidth(self) -> float:
        """Bytes a second that it reads while decoding."""
        return self.token_bytes * self.decode_tokens_per_second

    @property
    def prefill_flops_per_second(self) -> float | None:
        """A multiply-add is two; attention is left out, as prompts are short beside models."""
        if self.prefill_tokens_per_second is None or self.body_parameters is None:
            return None
        return 2 * self.body_parameters * self.prefill_tokens_per_second


@cache
def published_speeds() -> tuple[PublishedSpeed, ...]:
    """Those that a prediction may rest on: rows that say why they are left out are left out."""
    with TABLE.open(newline="") as stream:
        return tuple(_row(row) for row in csv.DictReader(stream) if not row["left_out"])


def left_out() -> dict[str, int]:
    """Why rows are left out, and how many."""
    with TABLE.open(newline="") as stream:
        reasons = [row["left_out"] for row in csv.DictReader(stream) if row["left_out"]]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def _row(row: dict[str, str]) -> PublishedSpeed:
    return PublishedSpeed(
        device=row["device"],
        soc=row["soc"],
        memory_bytes_per_second=float(row["memory_gb_per_s"]) * 1e9,
        i8mm=row["i8mm"] == "1",
        engine=row["engine"],
        model=row["model"],
        bits=float(row["bits"]),
        token_bytes=(float(row["weight_mb_per_token"]) + float(row["cache_mb_per_token"])) * 1e6,
        decode_tokens_per_second=float(row["decode_tps"]),
        prefill_tokens_per_second=float(row["prefill_tps"]) if row["prefill_tps"] else None,
        body_parameters=float(row["body_m_parameters"]) * 1e6 if row["body_m_parameters"] else None,
        source=row["source"],
    )
