from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTForCausalLM

from edgeicl.distill.adapter import adapted, check_adapter
from edgeicl.distill.label_reader import LabelReader
from edgeicl.errors import DataError
from tests.unit.distill.conftest import tiny_opt
from tests.unit.distill.test_trainer import distill

IDS = torch.arange(20, 30)[None]
WIDTH = 32


def gpt2(*, seed: int) -> GPT2LMHeadModel:
    """Its linear layers are `Conv1D`, whose weights are transposed."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": 264, "n_embd": WIDTH, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()


def llama(*, seed: int) -> LlamaForCausalLM:
    """It has no biases."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": 264, "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, initializer_range=0.2)).eval()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@given(st.sampled_from([1, 4, WIDTH]), st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_a_new_lora_changes_nothing_at_any_rank_up_to_the_full_one(rank: int, seed: int) -> None:
    model = tiny_opt(seed=1)
    plain, before = logits(model), state(model)
    with adapted(model, "lora", rank=rank, alpha=16, seed=seed):
        assert torch.equal(logits(model), plain)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("make", [tiny_opt, gpt2, llama], ids=["opt", "gpt2", "llama"])
def test_the_merged_model_is_the_adapted_one(make: Callable[..., torch.nn.Module]) -> None:
    model = make(seed=1)
    plain, kind, names = logits(model), type(model), list(model.state_dict())
    with adapted(model, "lora", rank=4, alpha=8, seed=0):
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert all(min(parameter.shape) == 4 for parameter in trained)
        torch.manual_seed(2)
        for parameter in trained:
            torch.nn.init.normal_(parameter, std=0.1)
        of_adapter = logits(model)
    assert (logits(model) - of_adapter).abs().max() < 1e-4
    assert (of_adapter - plain).abs().max() > 0.1  # negative control
    assert (type(model), list(model.state_dict())) == (kind, names)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_update_on_paper() -> None:
    """W + alpha / rank * B A, by hand, for one layer."""
    model = tiny_opt(seed=1)
    layer = model.model.decoder.layers[0].fc1
    weight = layer.weight.clone()
    with adapted(model, "lora", rank=2, alpha=6, target_modules=("fc1",), seed=0):
        inside = model.model.decoder.layers[0].fc1
        first, second = inside.lora_A["default"].weight, inside.lora_B["default"].weight
        torch.nn.init.normal_(second)
        expected = weight + 3.0 * second @ first
    merged = model.model.decoder.layers[0].fc1.weight
    assert torch.allclose(merged, expected, atol=1e-6)


def moved(adapter: str, **changes: object) -> dict[str, bool]:
    """Which parameters training has moved."""
    reader = LabelReader(tiny_opt(seed=8))
    before = dict(copy.deepcopy(reader.model).named_parameters())
    with adapted(reader.model, adapter, rank=4, alpha=8, **changes):  # type: ignore[arg-type]
        losses = distill(reader, epochs=8, learning_rate=2e-2)
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])  # 4 steps are an epoch
    return {name: not torch.equal(value, before[name]) for name, value in reader.model.named_parameters()}


def test_bitfit_moves_biases_and_nothing_else() -> None:
    found = moved("bitfit")
    assert {name for name, has in found.items() if has} == {name for name in found if name.endswith(".bias")}


def test_lora_moves_linear_layers_and_nothing_else() -> None:
    found = {name for name, has in moved("lora").items() if has}
    linear = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    assert found == {
        f"model.decoder.layers.{layer}.{'' if name.startswith('fc') else 'self_attn.'}{name}.weight"
        for layer in range(2)
        for name in linear
    }
    assert {name.split(".")[-2] for name, has in moved("lora", target_modules=("v_proj",)).items() if has} == {
        "v_proj"
    }


def test_without_an_adapter_everything_moves() -> None:
    """The negative control of the two above."""
    assert all(moved("none").values())


def test_checkpoints_hold_what_is_trained(opt: Callable[..., OPTForCausalLM], tmp_path: Path) -> None:
    sizes = {}
    for kind in ("none", "lora", "bitfit"):
        reader = LabelReader(opt(seed=8))
        with adapted(reader.model, kind, rank=1, alpha=1):  # type: ignore[arg-type]
            distill(reader, tmp_path / kind)
        (file,) = (tmp_path / kind).rglob("training.pt")
        saved = torch.load(file, weights_only=True)
        sizes[kind] = sum(value.numel() for value in saved["parameters"].values())
        moments = [entry["exp_avg"].numel() for entry in saved["optimizer"]["state"].values()]
        assert sum(moments) == sizes[kind]
    assert sizes["bitfit"] < 0.06 * sizes["none"]
    assert sizes["lora"] < 0.06 * sizes["none"]


def test_what_is_not_there_to_be_trained_is_refused(tmp_path: Path) -> None:
    llama(seed=0).save_pretrained(tmp_path / "llama")
    tiny_opt(seed=0).save_pretrained(tmp_path / "opt")
    with pytest.raises(DataError, match=r"found no biases.*\nnext: set distill.student.adapter: lora"):
        check_adapter(tmp_path / "llama", "bitfit")
    check_adapter(tmp_path / "opt", "bitfit")
    with pytest.raises(DataError, match=r"found no layers query for LoRA; has .*fc1.*q_proj"):
        check_adapter(tmp_path / "opt", "lora", target_modules=("query", "v_proj"))
    check_adapter(tmp_path / "llama", "lora", target_modules=("gate_proj",))
