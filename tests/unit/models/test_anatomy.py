"""The groups cover the model: every parameter of transformers' OPT once, with the right shape."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import OPTConfig, OPTForCausalLM

from edgeicl.errors import DataError
from edgeicl.models.architectures.table import anatomy_of

SMALL: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "ffn_dim": 64,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "word_embed_proj_dim": 32,
}


@pytest.mark.parametrize("enable_bias", [True, False])
def test_every_parameter_of_transformers_opt_has_one_place(enable_bias: bool) -> None:
    model = OPTForCausalLM(OPTConfig(**SMALL, enable_bias=enable_bias))
    anatomy = anatomy_of(model.config.to_dict())
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    placed = dict(anatomy.others)
    for group in anatomy.groups:
        rows = sum(shapes[name][0] for name in group.weights)
        assert group.shape == (rows, shapes[group.weights[0]][1])
        for name in (*group.weights, *group.biases):
            assert name not in placed
            placed[name] = shapes[name]
    assert placed == shapes


@pytest.mark.parametrize(("enable_bias", "biases"), [(True, 3 * 8 + 8 + 3 + 8), (False, 0)])
def test_fixed_tensors_on_paper(enable_bias: bool, biases: int) -> None:
    """One layer of width 8 and inner width 3: five positions, three norms, and biases if there are any."""
    config = {
        "model_type": "opt", "hidden_size": 8, "ffn_dim": 3, "num_hidden_layers": 1, "num_attention_heads": 1,
        "max_position_embeddings": 5, "enable_bias": enable_bias,
    }  # fmt: skip
    assert anatomy_of(config).fixed_tensor_bytes == 4 * (5 * 8 + 3 * 2 * 8 + biases)


def test_names_and_order() -> None:
    groups = anatomy_of({"model_type": "opt", **SMALL}).groups
    assert [group.name for group in groups][:5] == [
        "layers.0.attention.qkv",
        "layers.0.attention.output",
        "layers.0.mlp.up",
        "layers.0.mlp.down",
        "layers.1.attention.qkv",
    ]
    assert groups[-1].name == "embedding"
    assert [groups[4].layer, groups[-1].layer] == [1, None]
    assert [name.split(".")[-2] for name in groups[0].weights] == ["q_proj", "k_proj", "v_proj"]


def test_opt_125m_has_49_groups_and_its_known_parameter_count() -> None:
    """A bare configuration is OPT-125M: 125,239,296 parameters, 28,311,552 * 3 in its 12 layers' matrices."""
    anatomy = anatomy_of({"model_type": "opt"})
    groups = anatomy.groups
    assert len(groups) == 12 * 4 + 1
    biases = sum(group.shape[0] for group in groups if group.biases)
    matrices = sum(group.shape[0] * group.shape[1] for group in groups)
    others = sum(shape[0] * (shape[1] if len(shape) == 2 else 1) for shape in anatomy.others.values())
    assert matrices - 50272 * 768 == 84_934_656
    assert matrices + biases + others == 125_239_296


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tie_word_embeddings": False}, "tie_word_embeddings = False"),
        ({"activation_function": "gelu"}, "activation_function = 'gelu'"),
        ({"model_type": "rwkv"}, "model type 'rwkv' is not supported; expected one of"),
    ],
)
def test_what_is_unsupported_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError, match=named):
        anatomy_of({"model_type": "opt", **SMALL, **change})


def test_all_unsupported_settings_are_named_at_once() -> None:
    with pytest.raises(DataError, match=r"elementwise_affine.*activation_function.*tie_word"):
        anatomy_of(
            {
                "model_type": "opt",
                **SMALL,
                "layer_norm_elementwise_affine": False,
                "activation_function": "gelu",
                "tie_word_embeddings": False,
            }
        )
