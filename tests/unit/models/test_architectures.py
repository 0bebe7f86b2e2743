"""The anatomy of every architecture covers transformers' model: each parameter once, with its shape."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from edgeicl.errors import DataError
from edgeicl.models.architectures.table import ARCHITECTURES, anatomy_of
from tests.unit.tiny_models import VARIANTS


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_of_transformers_has_one_place(variant: str) -> None:
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(vocab_size=100, eos_token_id=2, **VARIANTS[variant])
    )
    anatomy = anatomy_of(model.config.to_dict())
    assert type(model).__name__ == anatomy.causal_lm
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    placed = dict(anatomy.others)
    for group in anatomy.groups:
        assert sum(group.parts) == group.shape[0]
        assert not placed.keys() & group.parameter_shapes.keys()
        placed |= group.parameter_shapes
    assert placed == shapes
    assert anatomy.tied == (model.get_output_embeddings().weight is model.get_input_embeddings().weight)


def test_every_architecture_has_a_variant() -> None:
    assert {sizes["model_type"] for sizes in VARIANTS.values()} == set(ARCHITECTURES)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_a_bare_configuration_means_what_transformers_means_by_it(model_type: str) -> None:
    theirs = AutoConfig.for_model(model_type)
    ours = anatomy_of({"model_type": model_type, "eos_token_id": 2})
    assert (ours.hidden, ours.layers, ours.heads) == (
        theirs.hidden_size,
        theirs.num_hidden_layers,
        theirs.num_attention_heads,
    )
    assert (ours.kv_heads, ours.positions, ours.vocabulary, ours.tied) == (
        theirs.num_key_value_heads,
        theirs.max_position_embeddings,
        theirs.vocab_size,
        theirs.tie_word_embeddings,
    )
    assert ours.widest == 2 * theirs.intermediate_size
    assert ours.config["rms_norm_eps"] == theirs.rms_norm_eps


def test_gpt2_on_paper() -> None:
    """A bare configuration is GPT-2 small: 124,439,808 weights."""
    anatomy = anatomy_of({"model_type": "gpt2"})
    assert len(anatomy.groups) == 12 * 4 + 1
    matrices = sum(rows * columns for rows, columns in (group.shape for group in anatomy.groups))
    assert matrices + anatomy.fixed_tensor_bytes // 4 == 124_439_808
    assert (anatomy.positions, anatomy.widest, anatomy.special_ids["pad_token_id"]) == (1024, 3072, 50256)


def test_opt_350m_on_paper() -> None:
    """331,196,416 weights: a residual stream of 1,024, embeddings of 512, and no norm before the head."""
    anatomy = anatomy_of(
        {
            "model_type": "opt", "hidden_size": 1024, "ffn_dim": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "word_embed_proj_dim": 512, "do_layer_norm_before": False,
        }
    )  # fmt: skip
    assert len(anatomy.groups) == 24 * 4 + 3
    assert anatomy.projected
    assert anatomy.embedding_width == 512
    matrices = sum(rows * columns for rows, columns in (group.shape for group in anatomy.groups))
    # of the position table two rows are not deployed
    assert matrices + anatomy.fixed_tensor_bytes // 4 + 2 * 1024 == 331_196_416


def test_smollm_135m_on_paper() -> None:
    """134,515,008 weights: 30 layers, 9 heads of 64, 3 for keys and values, a tied head."""
    anatomy = anatomy_of(
        {
            "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
            "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
            "tie_word_embeddings": True,
        }
    )  # fmt: skip
    assert len(anatomy.groups) == 30 * 4 + 1
    matrices = sum(rows * columns for rows, columns in (group.shape for group in anatomy.groups))
    assert matrices + anatomy.fixed_tensor_bytes // 4 == 134_515_008
    assert (anatomy.head_size, anatomy.kv_width, anatomy.widest) == (64, 192, 3072)
    assert anatomy.computed_bytes == 2048 * 64 * 4


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type = 'yarn'"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}}, "rope_type = 'dynamic'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"hidden_size": 40}, "make heads of 10"),
        ({"model_type": "gpt2", "activation_function": "relu"}, "activation_function = 'relu'"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "use_sliding_window = True"),
        ({"model_type": "qwen3", "eos_token_id": None}, "no eos_token_id"),
        ({"model_type": "mamba"}, r"'mamba' is not supported; expected one of .*llama, opt, qwen2, qwen3"),
    ],
)
def test_what_is_unsupported_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError, match=named):
        anatomy_of({**VARIANTS["llama"], "eos_token_id": 2, **change})
