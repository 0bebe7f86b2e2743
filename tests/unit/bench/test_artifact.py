"""Artifacts are opened only as they were written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeicl.bench.artifact import open_artifact
from edgeicl.errors import DataError, IntegrityError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.numerics.size import group_bytes
from edgeicl.specs.manifest import WEIGHTS_FILE, LedgerEntry
from edgeicl.specs.quant_plan import Format
from tests.unit.bench.conftest import build_artifact, tiny_task, tiny_tokenizer
from tests.unit.tiny_models import make_model

Make = Callable[..., Path]


def test_opens(make_artifact: Make) -> None:
    opened = open_artifact(make_artifact())
    assert (opened.vocabulary, opened.layers, opened.kv_heads, opened.head_size) == (40, 2, 2, 16)
    assert opened.context_tokens == 64
    assert opened.tokenizer.encode("w0").ids == [0, 8]


def test_bytes_on_paper(make_artifact: Make) -> None:
    """hidden 32, ffn 64, 2 layers, vocabulary 40: every byte that a token reads."""
    opened = open_artifact(make_artifact())
    weights = 2 * (3 * 32 * 32 + 32 * 32 + 64 * 32 + 32 * 64) + 40 * 32
    scales = 4 * weights // 32
    biases = 4 * 2 * (3 * 32 + 32 + 64 + 32)
    norms = 4 * (2 * 2 + 1) * 2 * 32
    assert opened.weight_bytes_per_token == weights + scales + biases + norms
    # 2 layers, keys and values, 2 heads of 16, fp32, 10 positions.
    assert opened.cache_bytes(10) == 2 * 2 * 2 * 16 * 4 * 10


def test_a_copy_for_prompts_is_not_read_by_tokens(make_artifact: Make) -> None:
    opened = open_artifact(make_artifact())
    copy = LedgerEntry(
        name="prompt.layers.0.mlp.up.codes", file=WEIGHTS_FILE, bytes=999, group="layers.0.mlp.up"
    )
    manifest = opened.manifest.model_copy(update={"ledger": (*opened.manifest.ledger, copy)})
    assert replace(opened, manifest=manifest).weight_bytes_per_token == opened.weight_bytes_per_token


def test_artifact_bytes_are_the_deployed_files(make_artifact: Make) -> None:
    folder = make_artifact()
    deployed = sum(path.stat().st_size for path in folder.iterdir() if path.name != "edgeicl.json")
    assert open_artifact(folder).artifact_bytes == deployed


def test_a_flipped_bit_is_found(make_artifact: Make) -> None:
    folder = make_artifact()
    path = folder / "model.onnx.data"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"model\.onnx\.data: found SHA-256 .*, expected"):
        open_artifact(folder)


def test_every_wrong_file_is_named(make_artifact: Make) -> None:
    folder = make_artifact()
    (folder / "task.json").unlink()
    (folder / "config.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"(?s)config\.json: found.*task\.json: missing"):
        open_artifact(folder)


def test_a_folder_without_a_graph(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no artifact: found no model\.onnx"):
        open_artifact(tmp_path)


def _rewrite(folder: Path, name: str, content: bytes, *, listed: bool = True) -> None:
    """Changes a file of the artifact together with its hash in the manifest, or without it there."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "edgeicl.json").read_text())
    manifest["files"].pop(name)
    if listed:
        manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / "edgeicl.json").write_text(json.dumps(manifest))


def test_a_configuration_without_a_key(make_artifact: Make) -> None:
    folder = make_artifact()
    config = json.loads((folder / "genai_config.json").read_text())
    del config["model"]["decoder"]["head_size"]
    _rewrite(folder, "genai_config.json", json.dumps(config).encode())
    with pytest.raises(DataError, match="has no key 'head_size'"):
        open_artifact(folder)


def test_without_a_manifest_nothing_runs(make_artifact: Make) -> None:
    folder = make_artifact()
    (folder / "edgeicl.json").unlink()
    with pytest.raises(IntegrityError, match=r"has no edgeicl\.json: nothing says what its files should be"):
        open_artifact(folder)


def test_weights_that_no_hash_is_known_of(make_artifact: Make) -> None:
    folder = make_artifact()
    _rewrite(folder, "model.onnx.data", (folder / "model.onnx.data").read_bytes(), listed=False)
    with pytest.raises(IntegrityError, match=r"model\.onnx\.data: edgeicl\.json has no hash of it"):
        open_artifact(folder)


def test_a_manifest_that_is_not_the_one_written(make_artifact: Make) -> None:
    folder = make_artifact()
    whole = (folder / "edgeicl.json").read_bytes()
    for content, said in (
        (b"\xff\xfe{}", "Invalid JSON: "),
        (whole[: len(whole) // 2], "Invalid JSON: EOF"),
        (whole.replace(b'"seed":0', b'"seed":"x"'), "at seed: Input should be a valid integer"),
    ):
        (folder / "edgeicl.json").write_bytes(content)
        with pytest.raises(IntegrityError, match=r"edgeicl\.json is not what edgeicl writes") as caught:
            open_artifact(folder)
        assert said in str(caught.value)
        assert "pydantic" not in str(caught.value)


def test_context_is_what_the_target_sets_memory_aside_for(make_artifact: Make) -> None:
    folder = make_artifact()
    config = json.loads((folder / "genai_config.json").read_text())
    assert open_artifact(folder).context_tokens == config["search"]["max_length"] == 64
    config["search"]["max_length"] = 20
    _rewrite(folder, "genai_config.json", json.dumps(config).encode())
    assert open_artifact(folder).context_tokens == 20


def test_what_people_read_may_be_edited_or_left_out(make_artifact: Make) -> None:
    folder = make_artifact()
    (folder / "report.md").write_text("first")
    manifest = json.loads((folder / "edgeicl.json").read_text())
    manifest["files"] |= dict.fromkeys(("report.md", "plan.json"), "0" * 64)
    (folder / "edgeicl.json").write_text(json.dumps(manifest))
    assert open_artifact(folder).path == folder


@pytest.mark.parametrize(("variant", "head"), [("gpt2", False), ("gpt2-untied", True), ("llama", True)])
def test_tables_of_which_a_token_reads_a_row_do_not_count(variant: str, head: bool, tmp_path: Path) -> None:
    """Positions, and the embedding beside a head of its own; bytes by hand."""
    config = model_config(make_model(tmp_path, variant))
    format_ = Format(bits=8, block_size=32)
    folder = build_artifact(
        tmp_path / "artifact", config, format_, tiny_tokenizer(), tiny_task({"yes": "w0", "no": "w1"})
    )
    opened, anatomy = open_artifact(folder), anatomy_of(config)
    all_bytes = (folder / "model.onnx.data").stat().st_size
    positions = 4 * 64 * 64 if variant.startswith("gpt2") else 0
    table = group_bytes(anatomy.vocabulary, 64, format_) if head else 0
    assert opened.weight_bytes_per_token == all_bytes - positions - table
