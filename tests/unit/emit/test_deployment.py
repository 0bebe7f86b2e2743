"""The artifact as other programs read it: onnxruntime-genai and transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from edgeicl.emit import generation_checks
from edgeicl.emit.deployment_files import genai_config, write_deployment_files
from edgeicl.emit.genai_process import GenaiRun
from edgeicl.emit.generation_checks import check_genai, check_greedy, check_transformers_tokenizer
from edgeicl.emit.lowering import write_model
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import ParityError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.loading import load_tokenizer
from edgeicl.models.model_folder import model_config
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.specs.manifest import TaskFile
from edgeicl.specs.quant_plan import Format
from tests.unit.emit.tiny_opt import BOS, Tiny

TASK = TaskFile(
    pattern="{a} answer:",
    verbalizers={"yes": " Yes", "no": " No"},
    verbalizer_tokens={"yes": (7,), "no": (8, 9)},
    separator="\n",
)
SAMPLES = ["the cat sat", " Yes", "\n\n", "naïve “quotes” 12, and 日本", "a  b."]
OPT_TOKENIZER = Path(__file__).parents[4] / "shared" / "data" / "tokenizer_opt"
INT8 = Format(bits=8, block_size=32)
PROMPTS = [[BOS, 60, 61, 62], [BOS, 70, 71]]


@pytest.fixture
def artifact(quantize: Callable[[Format], Tiny], tmp_path: Path) -> Path:
    tiny = quantize(INT8)
    config = model_config(tiny.student)
    write_model(tmp_path, config, QuantizedWeights(tiny.quantized))
    write_deployment_files(tmp_path, config, load_tokenizer(tiny.student), TASK, context_tokens=48, threads=1)
    return tmp_path


def greedy(folder: Path) -> list[list[int]]:
    decoder = OnnxDecoder(folder / "model.onnx", threads=1, context_tokens=32)
    return check_greedy(decoder, PROMPTS, 8)


def test_genai_generates_the_same_tokens_and_reads_the_same_ids(artifact: Path) -> None:
    pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai is not installed")
    assert check_genai(artifact, PROMPTS, greedy(artifact), SAMPLES) == []


def test_other_tokens_than_genai_makes_are_rejected(artifact: Path) -> None:
    pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai is not installed")
    wrong = [[(token + 1) % 300 for token in row] for row in greedy(artifact)]
    with pytest.raises(ParityError, match="onnxruntime-genai generates"):
        check_genai(artifact, PROMPTS, wrong, SAMPLES)


def test_a_configuration_that_genai_refuses_is_an_error(artifact: Path) -> None:
    pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai is not installed")
    config = json.loads((artifact / "genai_config.json").read_text())
    config["model"]["type"] = "opt"
    (artifact / "genai_config.json").write_text(json.dumps(config))
    with pytest.raises(ParityError, match="onnxruntime-genai can't run"):
        check_genai(artifact, PROMPTS, [[1], [1]], SAMPLES)


def _ends_at(artifact: Path, token: int) -> None:
    """Makes `token` the one that ends a text, for genai."""
    config = json.loads((artifact / "genai_config.json").read_text())
    config["model"]["eos_token_id"] = token
    (artifact / "genai_config.json").write_text(json.dumps(config))


def test_tokens_up_to_the_end_of_a_text_are_compared(artifact: Path) -> None:
    pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai is not installed")
    (tokens,) = greedy(artifact)[:1]
    last = max(tokens, key=tokens.index)
    assert tokens.index(last) > 0
    _ends_at(artifact, last)
    assert check_genai(artifact, PROMPTS[:1], [tokens], SAMPLES) == []
    wrong = [(tokens[0] + 1) % 50, *tokens[1:]]
    with pytest.raises(ParityError, match="onnxruntime-genai generates"):
        check_genai(artifact, PROMPTS[:1], [wrong], SAMPLES)
    longer = [*tokens[: tokens.index(last)], (last + 1) % 50]
    with pytest.raises(ParityError, match="onnxruntime-genai generates"):
        check_genai(artifact, PROMPTS[:1], [[*longer, tokens[0]]], SAMPLES)


def test_a_text_that_ends_at_once_is_no_fault_but_says_that_nothing_was_compared(artifact: Path) -> None:
    pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai is not installed")
    (tokens,) = greedy(artifact)[:1]
    _ends_at(artifact, tokens[0])
    (deviation,) = check_genai(artifact, PROMPTS[:1], [tokens], SAMPLES)
    assert deviation.got == "nothing to compare"


def test_a_crash_of_genai_is_told_and_ends_nothing_else(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the tokenizer it is a deviation, before that the artifact can't be used."""
    tokens = greedy(artifact)
    crashed = GenaiRun(tokens, None, "its process ended with exit code -11")
    monkeypatch.setattr(generation_checks, "run_genai", lambda *_: crashed)
    monkeypatch.setattr(generation_checks, "genai_version", lambda: "1")
    (deviation,) = check_genai(artifact, PROMPTS, tokens, SAMPLES)
    assert deviation.why == "its process ended with exit code -11"
    monkeypatch.setattr(generation_checks, "run_genai", lambda *_: GenaiRun(None, None, "exit code -11"))
    with pytest.raises(ParityError, match=r"can't run .*: exit code -11"):
        check_genai(artifact, PROMPTS, tokens, SAMPLES)


def test_absent_genai_is_a_deviation(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation_checks, "genai_version", lambda: None)
    (deviation,) = check_genai(artifact, PROMPTS, [[1], [1]], SAMPLES)
    assert (deviation.got, deviation.why) == ("not checked", "it isn't installed")


def test_ids_that_genai_reads_differently_are_a_deviation(artifact: Path) -> None:
    """Negative control: without add_bos_token genai leaves out the leading token."""
    pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai is not installed")
    path = artifact / "tokenizer_config.json"
    config = json.loads(path.read_text())
    assert config["add_bos_token"] is True
    path.write_text(json.dumps(config | {"add_bos_token": False}))
    (deviation,) = check_genai(artifact, PROMPTS, greedy(artifact), SAMPLES)
    assert "get other ids, such as 'the cat sat'" in deviation.got


def test_transformers_reads_the_same_ids(artifact: Path) -> None:
    check_transformers_tokenizer(artifact, SAMPLES)
    ids = Tokenizer.from_file(str(artifact / "tokenizer.json")).encode("the cat").ids
    assert ids[0] == BOS
    assert BOS not in ids[1:]


def test_a_tokenizer_that_is_only_a_word_list_still_works(artifact: Path) -> None:
    """onnxruntime-genai can't read one: said, not silent."""
    pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai is not installed")
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "the": 3, "cat": 4, "sat": 5, "<unk>": 6}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    config = model_config(artifact)
    write_deployment_files(artifact, config, tokenizer, TASK, context_tokens=48, threads=1)
    written = json.loads((artifact / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (written["bos_token"], written["pad_token"], written["unk_token"]) == ("</s>", "<pad>", "<unk>")
    check_transformers_tokenizer(artifact, ["the cat sat"])
    (deviation,) = check_genai(artifact, PROMPTS, greedy(artifact), ["the cat sat"])
    assert deviation.what == "onnxruntime-genai"


def test_opt_tokenizer_from_vocabulary_and_merges(artifact: Path) -> None:
    if not OPT_TOKENIZER.is_dir():
        pytest.skip(f"{OPT_TOKENIZER} is absent: OPT's vocabulary isn't part of the repository")
    config = model_config(artifact)
    for name in ("first", "second"):
        (artifact / name).mkdir()
        tokenizer = load_tokenizer(OPT_TOKENIZER)
        write_deployment_files(artifact / name, config, tokenizer, TASK, context_tokens=48, threads=1)
    first, second = ((artifact / name / "tokenizer.json").read_bytes() for name in ("first", "second"))
    assert first == second
    check_transformers_tokenizer(artifact / "first", SAMPLES)
    assert Tokenizer.from_file(str(artifact / "first" / "tokenizer.json")).encode("Hello world").ids == [
        2,
        31414,
        232,
    ]


def test_genai_config_on_paper() -> None:
    config = {
        "model_type": "opt",
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "vocab_size": 50272,
        "max_position_embeddings": 2048,
        "pad_token_id": None,
    }
    written = genai_config(anatomy_of(config), context_tokens=4096, threads=3)
    model, decoder = written["model"], written["model"]["decoder"]
    assert (model["type"], model["bos_token_id"], model["eos_token_id"], model["pad_token_id"]) == (
        "decoder",
        2,
        2,
        1,
    )
    assert (model["context_length"], model["vocab_size"], decoder["head_size"]) == (2048, 50272, 64)
    assert decoder["session_options"] == {"intra_op_num_threads": 3}
    assert written["search"]["past_present_share_buffer"] is True
    assert written["search"]["max_length"] == 2048


def test_several_tokens_may_end_a_text() -> None:
    """Llama 3 names three; what is padded with is the first of them, unless the configuration says."""
    config = {"model_type": "llama", "num_key_value_heads": 8, "bos_token_id": 7, "eos_token_id": [8, 9, 10]}
    written = genai_config(anatomy_of(config), context_tokens=512, threads=1)["model"]
    assert (written["bos_token_id"], written["eos_token_id"], written["pad_token_id"]) == (7, [8, 9, 10], 8)
    decoder = written["decoder"]
    assert (decoder["num_attention_heads"], decoder["num_key_value_heads"], decoder["head_size"]) == (
        32,
        8,
        128,
    )


def test_generation_is_compared_up_to_any_token_that_ends_a_text(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads((artifact / "genai_config.json").read_text())
    content["model"]["eos_token_id"] = [8, 9]
    (artifact / "genai_config.json").write_text(json.dumps(content))
    run = GenaiRun([[5, 6, 9]], [], "")
    monkeypatch.setattr(generation_checks, "run_genai", lambda *_: run)
    monkeypatch.setattr(generation_checks, "genai_version", lambda: "1")
    assert check_genai(artifact, [[1]], [[5, 6, 9, 4]], []) == []
    with pytest.raises(ParityError, match="generates"):
        check_genai(artifact, [[1]], [[5, 6, 7, 9]], [])


def test_configuration_keeps_the_model_and_drops_its_history(artifact: Path, student: Path) -> None:
    config = json.loads((artifact / "config.json").read_text())
    source = model_config(student)
    assert config["hidden_size"] == 64
    assert source.keys() - config.keys() <= {"dtype", "torch_dtype", "transformers_version", "_name_or_path"}
    assert TaskFile.model_validate_json((artifact / "task.json").read_text()) == TASK
    assert list(json.loads((artifact / "task.json").read_text())["verbalizers"]) == ["yes", "no"]


def test_logits_that_are_not_finite_are_rejected(artifact: Path) -> None:
    data = bytearray((artifact / "model.onnx.data").read_bytes())
    data[:4] = bytes.fromhex("0000c07f")  # the first tensor is fp32: NaN in its first number
    (artifact / "model.onnx.data").write_bytes(bytes(data))
    with pytest.raises(ParityError, match="logits aren't finite"):
        check_greedy(OnnxDecoder(artifact / "model.onnx", threads=1, context_tokens=32), [[0] * 6], 4)
