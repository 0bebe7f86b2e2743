"""Does onnxruntime compute from the artifact what an independent model computes from the same weights?

Two levels. *Exact*: the artifact's own graph with activations left in fp32 (accuracy_level 0), which must agree
with the reference to rounding; this is what finds a wrong scale, a shifted block or position, swapped rows.
*Shipped*: the artifact as it is, whose kernels round activations to int8 in blocks, or compute in fp16; that
error is allowed.
(What integer products round is no kernel's affair; those have a check of their own, `integer_parity`.)
Each is asked for the logits after a prompt, after tokens decoded with the cache, and both for a padded batch;
all of that again behind a prefix, which the reference reads as what it was before it became keys and values.

Tolerances are shares of the largest absolute reference logit. Seen on random weights: exact 2e-7 (2 layers of
width 64) to 2e-6 (12 of width 768); shipped 0.6 to 2 %, in fp16 0.2 %. Where the cache holds integers, the last
bit of fp32 may decide which of two a key becomes: exact 7e-7 to 7e-4; one that doesn't round is 8e-3 away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeicl.emit.graph_variants import with_exact_activations
from edgeicl.errors import ParityError
from edgeicl.models.growing_decoder import GrowingDecoder
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.models.prefix_file import Rows, prefix_tokens
from edgeicl.specs.manifest import ParityCheck
from edgeicl.specs.quant_plan import ActivationBits, CacheBits

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
AllLogits = Callable[[Ids, Ids, int], Logits]
"""Reference: ids [B, T], mask [B, T], how many tokens of each row are decoded -> logits [B, T, V]."""

EXACT_TOLERANCE = 2e-5
EXACT_TOLERANCE_OF_INTEGER_CACHE = 4e-3
SHIPPED_TOLERANCE = 0.1
SHIPPED_TOLERANCE_OF_HALVES = 0.02
_DECODED_TOKENS = 4


@dataclass(frozen=True)
class ParityCase:
    """Token rows, each a prompt and the tokens that are decoded after it."""

    name: str
    rows: tuple[tuple[int, ...], ...]
    decoded_tokens: int

    def padded(self, *, without: int = 0) -> tuple[Ids, Ids]:
        """Ids and mask [B, T], padded on the right, without each row's last `without` tokens."""
        rows = [row[: len(row) - without] for row in self.rows]
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return ids, mask


def parity_cases(vocabulary: int, context_tokens: int, *, seed: int, where: str = "") -> tuple[ParityCase, ...]:
    """A single prompt, and a batch of three of different lengths, of random tokens. `where` ends the names."""
    random = np.random.default_rng(seed)
    longest = min(28, context_tokens)
    decoded = min(_DECODED_TOKENS, longest - 1)
    lengths = (longest, max(decoded + 1, longest // 3), max(decoded + 1, longest // 2))
    rows = [tuple(int(token) for token in random.integers(0, vocabulary, n)) for n in lengths]
    return (
        ParityCase(f"single prompt{where}", (rows[2],), decoded),
        ParityCase(f"padded batch{where}", tuple(rows), decoded),
    )


def check_parity(
    model_path: Path,
    reference: AllLogits,
    cases: tuple[ParityCase, ...],
    *,
    threads: int,
    scratch: Path,
    prefix: tuple[Rows, Rows] | None = None,
    head_tokens: Sequence[int] | None = None,
    cache_bits: CacheBits = 32,
    activation_bits: ActivationBits = 32,
    decoder: type[OnnxDecoder] | type[GrowingDecoder] = OnnxDecoder,
) -> tuple[ParityCheck, ...]:
    """Compares the artifact with `reference` at both levels; `scratch` is a folder for the exact graph.

    `prefix` is what stands before every row: its keys and values in fp32, and as they are shipped.
    `head_tokens` are those that the artifact has logits of, all unless given. Differences are beside the
    largest logit of the whole vocabulary either way: those of a few labels may all be small. `cache_bits` are
    the artifact's; the reference rounds keys and values as it does, but to integers alone. Activations of 16
    bits aren't rounded to int8 on their way. `decoder` is what runs such a graph.

    Raises:
        ParityError: a difference above its tolerance; names every check that failed, with its figures.
    """
    exact_path = scratch / "exact.onnx"
    exact_path.write_bytes(with_exact_activations(model_path.read_bytes()))
    checks: list[ParityCheck] = []
    exact_tolerance = EXACT_TOLERANCE_OF_INTEGER_CACHE if cache_bits == 8 else EXACT_TOLERANCE
    shipped_tolerance = SHIPPED_TOLERANCE_OF_HALVES if activation_bits == 16 else SHIPPED_TOLERANCE
    for case in cases:
        expected = expected_logits(case, reference)
        for level, path, tolerance, rows in (
            ("exact", exact_path, exact_tolerance, prefix and prefix[0]),
            ("shipped", model_path, shipped_tolerance, prefix and prefix[1]),
        ):
            found = _found(decoder, case, path, model_path.parent, threads, rows)
            checks += compared(f"{level}, {case.name}", found, expected, tolerance, head_tokens)
    exact_path.unlink()
    failed = [check for check in checks if not check.max_abs_difference <= check.tolerance]
    if failed:
        lines = [
            f"  {check.name}: logits differ by {check.max_abs_difference:.3g}, expected at most "
            f"{check.tolerance:.3g} (largest reference logit {check.reference_scale:.3g})"
            for check in failed
        ]
        raise ParityError(
            "\n".join([f"{model_path} doesn't compute what the reference model does:", *lines]),
            next_step="this is a defect of the compiler or of the runtime; report it with the recipe and plan",
        )
    return tuple(checks)


def expected_logits(case: ParityCase, reference: AllLogits) -> Logits:
    """Logits [steps, B, V] at each row's last prompt token and at every token after it, without a cache."""
    ids, mask = case.padded()
    logits = reference(ids, mask, case.decoded_tokens)
    first = mask.sum(axis=1) - case.decoded_tokens - 1
    rows = np.arange(len(ids))
    return np.stack([logits[rows, first + step] for step in range(case.decoded_tokens + 1)])


def _found(
    engine: type[OnnxDecoder] | type[GrowingDecoder],
    case: ParityCase,
    path: Path,
    weights_folder: Path,
    threads: int,
    prefix: Rows | None,
) -> Logits:
    decoder = engine(
        path,
        threads=threads,
        context_tokens=max(map(len, case.rows)) + prefix_tokens(prefix),
        batch_size=len(case.rows),
        weights_folder=weights_folder,
    )
    if prefix is not None:
        decoder.load_prefix(prefix)
    after_prompt = decoder.prefill(*case.padded(without=case.decoded_tokens))
    steps = range(-case.decoded_tokens, 0)
    return np.stack([after_prompt, *(decoder.decode([row[step] for row in case.rows]) for step in steps)])


def compared(
    name: str, found: Logits, expected: Logits, tolerance: float, head_tokens: Sequence[int] | None
) -> list[ParityCheck]:
    """Of `expected` [steps, B, V] those columns are compared that `found` [steps, B, V or L] has."""
    checks = []
    wanted = expected if head_tokens is None else expected[..., list(head_tokens)]
    for part, steps in (("prefill", slice(0, 1)), ("decode", slice(1, None))):
        scale = float(np.abs(expected[steps]).max())
        difference = float(np.abs(found[steps].astype(np.float64) - wanted[steps]).max())
        checks.append(
            ParityCheck(
                name=f"{name}, {part}",
                max_abs_difference=difference,
                tolerance=tolerance * scale,
                reference_scale=scale,
            )
        )
    return checks
