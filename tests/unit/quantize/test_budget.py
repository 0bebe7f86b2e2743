"""The bytes that a target leaves for weight groups, on paper."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeicl.errors import BudgetError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.quantize.allocation import Limit
from edgeicl.quantize.budget import WeightBudget, task_file_bytes, weight_budget
from edgeicl.specs.manifest import TaskFile
from edgeicl.specs.quant_plan import Format
from edgeicl.specs.target import Target

INT4 = Format(bits=4, block_size=32)


def _budget(artifact: int | None, resident: int | None) -> WeightBudget:
    return WeightBudget("phone", artifact, resident, 100, 20, 250, 50, 4000)


def _target(**budget: Any) -> Target:
    return Target.model_validate(
        {
            "version": 1,
            "name": "phone",
            "description": "a phone",
            "threads": 2,
            "context_tokens": 4096,
            "runtime_overhead_bytes": "60 MB",
            "formats": [{"bits": 4, "block_size": 32}],
            "budget": budget,
            "sources": {},
        }
    )


def test_each_limit_counts_its_own_parts() -> None:
    """artifact = stored + 100 + 20; resident = held + 100 + 250 + 50 + 4000."""
    stored, held = {"a": {INT4: 1}}, {"a": {INT4: 2}}
    assert _budget(1120, None).limits(stored, held) == [Limit(stored, 1000)]
    assert _budget(None, 5000).limits(stored, held) == [Limit(held, 600)]
    assert _budget(100, 5000).limits(stored, held) == [Limit(stored, -20), Limit(held, 600)]


def test_a_broken_limit_is_named_with_what_would_be_needed() -> None:
    _budget(1120, 5000).require(stored_bytes=1000, held_bytes=600, what="the plan")
    with pytest.raises(
        BudgetError, match=r"target phone: budget\.resident_bytes is 5000.*the plan takes 5001"
    ) as caught:
        _budget(1120, 5000).require(stored_bytes=1000, held_bytes=601, what="the plan")
    assert caught.value.smallest_bytes == 5001
    with pytest.raises(
        BudgetError, match=r"budget\.artifact_bytes is 1120.*weight groups 1001, other tensors 100"
    ):
        _budget(1120, None).require(stored_bytes=1001, held_bytes=0, what="the plan")


def test_opt_125m_on_paper() -> None:
    """Positions 2048 * 768, norms 25 * 2 * 768, biases 12 * (5 * 768 + 3072): 1,694,208 fp32 numbers.

    The KV cache of the model's 2048 positions is 2 * 12 * 768 * 4 bytes each, 150,994,944 in all.
    """
    anatomy = anatomy_of({"model_type": "opt"})
    found, deviations = weight_budget(
        _target(artifact_bytes="100 MB"), anatomy, tokenizer_bytes=2_000_000, task_bytes=500
    )
    assert found.other_tensor_bytes == 4 * (2048 * 768 + 25 * 2 * 768 + 12 * (5 * 768 + 3072))
    assert found.kv_cache_bytes == 150_994_944
    assert found.prefill_bytes == 4 * 2048 * (2 * 3072 + 6 * 768)
    assert found.resident_bytes(0) == (
        found.other_tensor_bytes + 150_994_944 + found.prefill_bytes + 60_000_000
    )
    written = len(json.dumps(anatomy.config, indent=1))
    assert found.other_file_bytes == 2_000_000 + 500 + written + 4096 + 12 * 4608 + 2048
    assert [(d.what, d.asked, d.got) for d in deviations] == [("context_tokens", "4096", "2048")]


def test_fewer_heads_of_keys_and_rotary_tables_on_paper() -> None:
    """SmolLM-135M: 3 of 9 heads of 64 have keys; tables of 2048 positions; a gate and what passes it."""
    anatomy = anatomy_of(
        {
            "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
            "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
        }
    )  # fmt: skip
    found, _ = weight_budget(_target(resident_bytes="1 GB"), anatomy, tokenizer_bytes=0, task_bytes=0)
    assert found.other_tensor_bytes == 4 * 61 * 576
    assert found.kv_cache_bytes == 2 * 30 * 3 * 64 * 4 * 2048
    assert found.computed_bytes == 2 * 2048 * 32 * 4
    assert found.prefill_bytes == 4 * 2048 * (3 * 2 * 1536 + 9 * 576)
    parts = found.other_tensor_bytes + found.kv_cache_bytes + found.computed_bytes + found.prefill_bytes
    assert found.resident_bytes(0) == parts + 60_000_000
    with pytest.raises(BudgetError, match=r"runtime 60000000, tables of positions 524288"):
        found.require(stored_bytes=0, held_bytes=10**9, what="the plan")


def test_a_context_that_the_model_has_is_no_deviation() -> None:
    anatomy = anatomy_of({"model_type": "opt", "max_position_embeddings": 4096})
    assert weight_budget(_target(resident_bytes="1 GB"), anatomy, tokenizer_bytes=0, task_bytes=0)[1] == ()


@pytest.mark.parametrize("word", [" Yes", " flabbergasted and more", "日本語"])
def test_the_task_file_is_never_larger(word: str) -> None:
    """Against the file as it is written, with a token for each byte of the words."""
    verbalizers = {"yes": word, "no": " No"}
    file = TaskFile(
        pattern="{premise} so “{hypothesis}”?",
        verbalizers=verbalizers,
        verbalizer_tokens={label: (262_143,) * len(text.encode()) for label, text in verbalizers.items()},
        separator="\n\n",
    )
    written = json.dumps(file.model_dump(mode="json"), ensure_ascii=False, indent=1).encode()
    allowed = task_file_bytes(file.pattern, file.verbalizers, file.separator)
    assert len(written) < allowed < len(written) + 1000


def test_limits_that_can_only_be_kept_one_at_a_time_name_what_would_be_needed() -> None:
    """int4 in small blocks is small in files, int8 in large ones in memory."""
    int8 = Format(bits=8, block_size=256)
    stored, held = {"a": {INT4: 100, int8: 150}}, {"a": {INT4: 300, int8: 200}}
    _budget(270, 4600).require_together(stored, held)
    with pytest.raises(BudgetError, match=r"artifact_bytes 269 and .* 4600 at once") as caught:
        _budget(269, 4600).require_together(stored, held)
    assert caught.value.smallest_bytes == 270
    _budget(269, 4700).require_together(stored, held)


def test_of_three_limits_the_two_that_conflict_are_named() -> None:
    """int4 alone is fast enough, int8 in large blocks alone small enough in memory; files are no matter."""
    int8 = Format(bits=8, block_size=256)
    stored, held = {"a": {INT4: 100, int8: 150}}, {"a": {INT4: 300, int8: 200}}
    reads = {"a": {INT4: 10, int8: 20}}
    _budget(1000, 4700).require_together(stored, held, {"budget.decode_ms 5": Limit(reads, 15)})
    with pytest.raises(
        BudgetError, match=r"keeps budget\.resident_bytes 4600 and budget\.decode_ms 5 at"
    ) as caught:
        _budget(1000, 4600).require_together(stored, held, {"budget.decode_ms 5": Limit(reads, 15)})
    assert caught.value.smallest_bytes == 300 + 100 + 250 + 50 + 4000
