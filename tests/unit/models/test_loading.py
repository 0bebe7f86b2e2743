from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import OPTConfig, OPTForCausalLM

from edgeicl.errors import DataError
from edgeicl.models.loading import check_memory, check_same_tokens, load_model, load_tokenizer, save_model
from edgeicl.models.model_folder import model_folder, parameter_count, weights_digest

SHARED_TOKENIZER = Path(__file__).parents[4] / "shared" / "data" / "tokenizer_opt"


def write_model(folder: Path, *, seed: int = 0, vocab: int = 8, **tokens: int) -> OPTForCausalLM:
    torch.manual_seed(seed)
    config = OPTConfig(
        vocab_size=vocab,
        hidden_size=16,
        word_embed_proj_dim=16,
        num_hidden_layers=1,
        ffn_dim=32,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    model = OPTForCausalLM(config).eval()
    model.save_pretrained(folder)
    Tokenizer(models.WordLevel(tokens or {"a": 0, "b": 1}, unk_token="a")).save(str(folder / "tokenizer.json"))
    return model


def logits(model: OPTForCausalLM) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([[1, 2, 3]])).logits


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path / "cache"))


def test_round_trip(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    folder = model_folder("model", base_folder=tmp_path)
    loaded = load_model(folder)
    assert not loaded.training
    assert torch.equal(logits(loaded), logits(model))
    save_model(loaded, folder, tmp_path / "copy")
    assert weights_digest(tmp_path / "copy") == weights_digest(tmp_path / "copy")
    assert torch.equal(logits(load_model(tmp_path / "copy")), logits(model))
    assert load_tokenizer(tmp_path / "copy").get_vocab() == {"a": 0, "b": 1}
    stored = load_file(tmp_path / "copy" / "model.safetensors")
    assert parameter_count(tmp_path / "copy") == sum(tensor.numel() for tensor in stored.values())
    assert load_model(folder, "bf16").dtype == torch.bfloat16


def test_the_digest_sees_weights_and_tokenizer(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        write_model(tmp_path / name, seed=seed)
    one, same, other = (weights_digest(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same != other
    write_model(tmp_path / "same", a=1, b=0)
    assert weights_digest(tmp_path / "same") != one


def test_bin_weights_are_converted_once(tmp_path: Path) -> None:
    model = write_model(tmp_path / "old")
    (tmp_path / "old" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "old" / "pytorch_model.bin")
    folder = model_folder(str(tmp_path / "old"))
    assert folder.is_relative_to(tmp_path / "cache")
    assert torch.equal(logits(load_model(folder)), logits(model))
    assert model_folder(str(tmp_path / "old")) == folder


def test_bin_weights_with_code_in_them_are_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "ran"),)  # pragma: no cover

    write_model(tmp_path / "old")
    (tmp_path / "old" / "model.safetensors").unlink()
    torch.save({"weight": Bomb()}, tmp_path / "old" / "pytorch_model.bin")
    with pytest.raises(DataError, match="can't be read as plain weights"):
        model_folder(str(tmp_path / "old"))
    assert not (tmp_path / "ran").exists()


def test_missing_weights_are_an_error_not_random_ones(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(DataError, match=r"found no weights for model\.decoder\.layers\.1\."):
        load_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("builtin:nli-techer", "no such built-in model"),
        ("./absent", "found no folder"),
        ("empty", "found no config.json"),
        ("bare", "found no weights"),
    ],
)
def test_folders_that_hold_no_model(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    with pytest.raises(DataError, match=message):
        model_folder(name, base_folder=tmp_path)


def test_a_hub_that_can_not_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def fails(*_: object, **__: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(
        DataError, match=r"can't be had from the hub: ConnectionError: no route\nnext: check name"
    ):
        model_folder("someone/some-model", base_folder=tmp_path)


def test_memory_is_looked_at_first(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    weights = parameter_count(tmp_path / "model")
    check_memory(tmp_path / "model", "fp32", available_bytes=5 * weights)
    with pytest.raises(DataError, match=r"weights in fp32 need about .*\nnext: set load_in: bf16"):
        check_memory(tmp_path / "model", "fp32", available_bytes=4 * weights)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_eight_bits_need_cuda(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    with pytest.raises(DataError, match=r"load_in 8bit needs CUDA.*\nnext: set load_in: bf16"):
        load_model(tmp_path / "model", "8bit")


def test_different_tokens_or_heads_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "one")
    write_model(tmp_path / "wider", vocab=12)
    write_model(tmp_path / "other", a=1, b=0)
    check_same_tokens(tmp_path / "one", tmp_path / "wider", same_head=False)
    with pytest.raises(DataError, match=r"has 8 logits and student .* 12"):
        check_same_tokens(tmp_path / "one", tmp_path / "wider", same_head=True)
    with pytest.raises(DataError, match=r"2 of 2 tokens differ \(ids: 'a': 0 and 1"):
        check_same_tokens(tmp_path / "one", tmp_path / "other", same_head=False)


@pytest.mark.skipif(not SHARED_TOKENIZER.exists(), reason="OPT's tokenizer (shared/data) is absent")
def test_a_tokenizer_json_is_made_where_there_is_none(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    for path in SHARED_TOKENIZER.iterdir():
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model" / "tokenizer.json").unlink()
    folder = model_folder(str(tmp_path / "model"))
    assert load_tokenizer(folder).encode("Hello world").ids == [2, 31414, 232]
