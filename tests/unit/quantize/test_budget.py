"""The bytes that a target leaves for weight groups, on paper."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeicl.errors import BudgetError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.quantize.budget import WeightBudget, task_file_bytes, weight_budget
from edgeicl.specs.manifest import TaskFile
from edgeicl.specs.target import Target


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


def test_a_broken_limit_is_named_with_what_would_be_needed() -> None:
    _budget(1120, 5000).require(stored_bytes=1000, held_bytes=600, what="the plan", instead="")
    with pytest.raises(
        BudgetError, match=r"target phone: budget\.resident_bytes is 5000.*the plan takes 5001"
    ) as caught:
        _budget(1120, 5000).require(stored_bytes=1000, held_bytes=601, what="the plan", instead="")
    assert caught.value.smallest_bytes == 5001
    with pytest.raises(
        BudgetError, match=r"budget\.artifact_bytes is 1120.*weight groups 1001, other tensors 100"
    ):
        _budget(1120, None).require(stored_bytes=1001, held_bytes=0, what="the plan", instead="")


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
        found.require(stored_bytes=0, held_bytes=10**9, what="the plan", instead="")


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
