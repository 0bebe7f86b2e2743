"""What one measurement runs: threads, lengths and repetitions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from edgeicl.errors import Problem, SpecError

_OPTIONS = {"least_s": "--seconds"}
_MAY_BE_0 = ("warmup_repetitions", "decode_tokens", "least_s")


@dataclass(frozen=True)
class Workload:
    """A prompt, then tokens decoded one by one, several times over after some runs to warm up.

    `least_s`: repetitions go on for so many seconds; a fast engine is else measured for an instant.
    """

    threads: int
    prompt_tokens: int
    decode_tokens: int
    repetitions: int = 3
    warmup_repetitions: int = 1
    least_s: float = 0.0

    def __post_init__(self) -> None:
        """Raises SpecError that lists every count below 1 (those of `_MAY_BE_0`: below 0)."""
        problems = [
            Problem(
                _OPTIONS.get(name, f"--{name.replace('_', '-')}"),
                f"found {value}",
                f"expected at least {least}",
            )
            for name, value in asdict(self).items()
            if value < (least := 0 if name in _MAY_BE_0 else 1)
        ]
        if problems:
            raise SpecError("bench", problems)

    def fitted(self, context_tokens: int) -> tuple[Workload, tuple[str, ...]]:
        """Itself with lengths that fit the model's context, and a note where they had to be cut.

        The prompt is cut first, down to one token; then the decode.
        """
        if self.prompt_tokens + self.decode_tokens <= context_tokens:
            return self, ()
        decode = min(self.decode_tokens, context_tokens - 1)
        cut = replace(self, prompt_tokens=context_tokens - decode, decode_tokens=decode)
        lengths = (
            ("prompt", self.prompt_tokens, cut.prompt_tokens),
            ("decode", self.decode_tokens, cut.decode_tokens),
        )
        told = ", ".join(f"{what} {asked} -> {got}" for what, asked, got in lengths if asked != got)
        return cut, (f"cut to fit the model's context of {context_tokens} tokens: {told}",)

    def of(self, *, generates: bool) -> tuple[Workload, tuple[str, ...]]:
        """Itself; or, where logits are of labels alone, without its decode, and a note that says why."""
        if generates or not self.decode_tokens:
            return self, ()
        why = "nothing is decoded: the artifact has logits of its labels alone (emit.head: verbalizers)"
        return replace(self, decode_tokens=0), (why,)

    @property
    def mean_decode_depth_tokens(self) -> float:
        """Mean count of positions whose keys and values a decode step reads, its own included."""
        return self.prompt_tokens + (self.decode_tokens + 1) / 2
