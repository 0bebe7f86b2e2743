from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers
from transformers import OPTConfig, OPTForCausalLM

from edgeicl.errors import DataError
from edgeicl.models.loading import check_same_tokens, config_number, load_model, load_tokenizer, save_model
from edgeicl.models.model_folder import is_on_hub, model_folder, parameter_shapes, weights_digest
from tests.unit.byte_tokenizer import byte_tokenizer

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
    assert weights_digest(tmp_path / "copy") == weights_digest(folder)
    assert torch.equal(logits(load_model(tmp_path / "copy")), logits(model))
    assert load_tokenizer(tmp_path / "copy").get_vocab() == {"a": 0, "b": 1}
    stored = load_file(tmp_path / "copy" / "model.safetensors")
    assert parameter_shapes(tmp_path / "copy") == {name: tuple(each.shape) for name, each in stored.items()}
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
    (tmp_path / "old" / "README.md").write_text("license: mit")
    assert (model_folder(str(tmp_path / "old")) / "README.md").read_text() == "license: mit"


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


def test_a_model_of_the_hub_comes_with_its_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    write_model(tmp_path / "snapshot")
    asked: list[str] = []

    def downloads(name: str, *, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", downloads)
    assert model_folder("someone/some-model", base_folder=tmp_path) == tmp_path / "snapshot"
    assert "README.md" in asked


def test_what_is_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "someone/local").mkdir(parents=True)
    assert is_on_hub("someone/some-model", base_folder=tmp_path)
    assert not is_on_hub("someone/local", base_folder=tmp_path)
    assert not is_on_hub(str(tmp_path / "someone/local"))
    assert not is_on_hub("builtin:nli-student")


def test_a_hub_that_can_not_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def fails(*_: object, **__: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(
        DataError, match=r"can't be had from the hub: ConnectionError: no route\nnext: check name"
    ):
        model_folder("someone/some-model", base_folder=tmp_path)


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


def test_tokenizers_that_cut_texts_differently_are_refused(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_model(tmp_path / name, vocab=300)
        byte_tokenizer().save(str(tmp_path / name / "tokenizer.json"))
    check_same_tokens(tmp_path / "one", tmp_path / "other", same_head=True)
    changed = byte_tokenizer()
    changed.normalizer = normalizers.Lowercase()
    for tokenizer, becomes in (
        (changed, r"\['T', 'h', .* and \['t', 'h', .* from token 1 on"),
        (byte_tokenizer(leading=False), r"\['</s>', 'T', .* and \['T', 'h', .* from token 0 on"),
    ):
        tokenizer.save(str(tmp_path / "other" / "tokenizer.json"))
        with pytest.raises(DataError, match=f'cut texts differently: "The old dog.* becomes {becomes}'):
            check_same_tokens(tmp_path / "one", tmp_path / "other", same_head=True)


def test_padding_and_truncation_saved_with_a_tokenizer_are_dropped(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>", length=16)
    tokenizer.enable_truncation(8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = ["short", "a text of more than eight tokens"]
    expected = [encoding.ids for encoding in byte_tokenizer().encode_batch(texts)]
    found = [encoding.ids for encoding in load_tokenizer(tmp_path).encode_batch(texts)]
    assert found == expected


def test_padding_of_a_tokenizer_without_tokenizer_json_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded = byte_tokenizer()
    padded.enable_padding(length=16)
    made = SimpleNamespace(backend_tokenizer=padded)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: made)
    assert load_tokenizer(tmp_path).encode("short").ids == byte_tokenizer().encode("short").ids


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"model_type": "opt"}, 2048),
        ({"model_type": "opt", "max_position_embeddings": 40}, 40),
        ({"model_type": "gpt2", "n_positions": 24}, 24),
    ],
)
def test_a_number_that_a_configuration_leaves_out_or_names_otherwise(
    tmp_path: Path, config: dict[str, object], positions: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert config_number(tmp_path, "max_position_embeddings") == positions


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"model_type": "bloom"}', r"config.json \(bloom\) has no max_position_embeddings; expected a whole"),
        ('{"model_type": "no-such"}', "config.json can't be used: .*no-such"),
        ("{", "config.json can't be used"),
    ],
)
def test_a_number_that_is_not_to_be_had(tmp_path: Path, config: str, message: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(DataError, match=message):
        config_number(tmp_path, "max_position_embeddings")


@pytest.mark.skipif(not SHARED_TOKENIZER.exists(), reason="OPT's tokenizer (shared/data) is absent")
def test_a_tokenizer_json_is_made_where_there_is_none(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    for path in SHARED_TOKENIZER.iterdir():
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model" / "tokenizer.json").unlink()
    folder = model_folder(str(tmp_path / "model"))
    assert load_tokenizer(folder).encode("Hello world").ids == [2, 31414, 232]
