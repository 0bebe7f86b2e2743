from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, OPTForCausalLM

from edgeicl.distill.hypernetwork import (
    PARTS,
    Hypernetwork,
    compress,
    load_hypernetwork,
    new_hypernetwork,
    save_hypernetwork,
)
from edgeicl.errors import DataError
from tests.unit.byte_tokenizer import byte_tokenizer

CONTEXTS = [[0, 20, 21, 22, 23], [0, 30]]
Opt = Callable[..., OPTForCausalLM]


def hypernetwork(
    model: OPTForCausalLM, *, width: int = 32, start: str = "normal", seed: int = 0
) -> Hypernetwork:
    return new_hypernetwork(model, vectors=3, width=width, start=start, seed=seed)  # type: ignore[arg-type]


def test_vectors_are_the_last_hidden_states_behind_the_demonstrations(opt: Opt) -> None:
    made = hypernetwork(opt(seed=1))
    found = made(CONTEXTS)
    assert found.shape == (2, 3, 32)
    for context, vectors in zip(CONTEXTS, found, strict=True):
        tokens = made.model.get_input_embeddings()(torch.tensor(context))
        whole = torch.cat([tokens, made.placeholders])[None]
        states = made.model(inputs_embeds=whole, output_hidden_states=True).hidden_states[-1]
        assert torch.allclose(vectors, states[0, -3:], atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_a_projection_only_where_widths_differ(opt: Opt) -> None:
    assert hypernetwork(opt(seed=1)).projection is None
    wider = hypernetwork(opt(seed=1), width=48)
    assert wider.projection is not None
    found = wider(CONTEXTS)
    assert found.shape == (2, 3, 48)
    assert found.abs().max() <= 1.0  # tanh


def test_placeholders_start_as_told(opt: Opt) -> None:
    model = opt(seed=1)
    table = model.get_input_embeddings().weight
    drawn = new_hypernetwork(model, vectors=400, width=32, start="normal", seed=0).placeholders
    assert drawn.std().item() == pytest.approx(0.02, rel=0.05)
    of_words = hypernetwork(model, start="vocabulary").placeholders
    assert all((table == row).all(-1).any() for row in of_words)
    again, other = (hypernetwork(model, start="vocabulary", seed=seed).placeholders for seed in (0, 1))
    assert torch.equal(of_words, again)
    assert not torch.equal(of_words, other)


def test_what_is_saved_compresses_alike(opt: Opt, tmp_path: Path) -> None:
    source = tmp_path / "source"
    opt(seed=2).save_pretrained(source)
    byte_tokenizer().save(str(source / "tokenizer.json"))
    for width in (32, 48):
        made = hypernetwork(opt(seed=3), width=width)
        save_hypernetwork(made, source, tmp_path / str(width))
        loaded = load_hypernetwork(tmp_path / str(width))
        for context in CONTEXTS:
            np.testing.assert_array_equal(compress(loaded, context), compress(made, context))
        assert OPTForCausalLM.from_pretrained(tmp_path / str(width)).config.hidden_size == 32
        names = {path.name for path in (tmp_path / str(width)).iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", PARTS} <= names


def test_a_folder_without_placeholders_is_no_hypernetwork(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found no vectors\.safetensors"):
        load_hypernetwork(tmp_path)


def test_more_demonstrations_than_it_reads_are_refused(opt: Opt) -> None:
    made = hypernetwork(opt(seed=1, positions=20))
    assert compress(made, range(17)).shape == (3, 32)
    with pytest.raises(DataError, match=r"18 tokens; .* reads 17 beside its 3 placeholders"):
        compress(made, range(18))


def test_any_decoder_can_be_one_and_its_unread_head_stays(opt: Opt) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=264, n_embd=16, n_layer=1, n_head=2, tie_word_embeddings=False)
    made = new_hypernetwork(GPT2LMHeadModel(config).eval(), vectors=2, width=32, start="normal", seed=0)
    made(CONTEXTS).sum().backward()
    assert not made.model.lm_head.weight.requires_grad
    unread = [name for name, value in made.named_parameters() if value.requires_grad and value.grad is None]
    assert unread == []
