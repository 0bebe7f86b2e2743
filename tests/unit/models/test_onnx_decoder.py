"""The decoder with its bound buffers, against a plain session that is fed arrays and a growing cache."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edgeicl.emit.lowering import write_model
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.models.model_folder import model_config
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.specs.quant_plan import Format
from tests.unit.emit.tiny_opt import make_student, write_quantized


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_student(folder)
    write_quantized(folder, folder, Format(bits=32))
    write_model(folder, model_config(folder), QuantizedWeights(folder))
    return folder / "model.onnx"


class PlainSession:
    """Fresh arrays at each call; cache and mask as long as the tokens so far, as in onnxruntime-genai."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [entry.name for entry in self.session.get_inputs()][2:]
        self.length = 0
        self.cache = {name: np.zeros((1, 4, 0, 16), np.float32) for name in self.names}

    def run(self, ids: list[int]) -> np.ndarray:
        self.length += len(ids)
        feed = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, self.length), np.int64)}
        logits, *present = self.session.run(None, feed | self.cache)
        self.cache = dict(zip(self.names, present, strict=True))
        return np.asarray(logits[:, 0])


def decoder(path: Path, *, context: int = 32, batch: int = 1) -> OnnxDecoder:
    return OnnxDecoder(path, threads=1, context_tokens=context, batch_size=batch)


def test_agrees_with_a_plain_session(model_path: Path) -> None:
    bound, plain = decoder(model_path), PlainSession(model_path)
    prompt = [2, 40, 41, 42, 43, 44, 45]
    np.testing.assert_allclose(bound.prefill(np.array([prompt])), plain.run(prompt), rtol=0, atol=1e-4)
    for token in (50, 51, 52, 53):
        np.testing.assert_allclose(bound.decode([token]), plain.run([token]), rtol=0, atol=1e-4)


def test_a_prompt_in_two_parts_is_the_same_prompt(model_path: Path) -> None:
    """The graph takes several tokens after a cache, too, as onnxruntime-genai may pass them."""
    whole, parts = PlainSession(model_path), PlainSession(model_path)
    prompt = [2, 40, 41, 42, 43, 44, 45]
    parts.run(prompt[:3])
    np.testing.assert_allclose(parts.run(prompt[3:]), whole.run(prompt), rtol=0, atol=1e-4)


def test_rows_of_a_padded_batch_do_not_touch_each_other(model_path: Path) -> None:
    rows = [[2, 40, 41, 42, 43, 44], [2, 50, 51], [2, 60, 61, 62]]
    ids, mask = np.ones((3, 6), np.int64), np.zeros((3, 6), np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)], mask[index, : len(row)] = row, 1
    batch = decoder(model_path, batch=3)
    logits = [batch.prefill(ids, mask), batch.decode([70, 71, 72]), batch.decode([80, 81, 82])]
    for index, row in enumerate(rows):
        alone = decoder(model_path)
        expected = [alone.prefill(np.array([row])), alone.decode([70 + index]), alone.decode([80 + index])]
        for found, one in zip(logits, expected, strict=True):
            np.testing.assert_allclose(found[index], one[0], rtol=0, atol=1e-4)
    assert np.abs(logits[0][0] - logits[0][1]).max() > 0.1


def test_a_new_prompt_forgets_the_old_one(model_path: Path) -> None:
    used, fresh = decoder(model_path), decoder(model_path)
    used.prefill(np.array([list(range(20, 48))]))
    used.decode([5])
    np.testing.assert_array_equal(used.prefill(np.array([[2, 9, 8]])), fresh.prefill(np.array([[2, 9, 8]])))
    np.testing.assert_array_equal(used.decode([7]), fresh.decode([7]))
    used.reset()
    np.testing.assert_array_equal(used.decode([2]), decoder(model_path).prefill(np.array([[2]])))


def test_results_are_copies_but_steps_are_not(model_path: Path) -> None:
    bound = decoder(model_path)
    first = bound.prefill(np.array([[2, 30]]))
    kept = first.copy()
    view = bound.step([31])
    seen = view.copy()
    bound.step([32])
    np.testing.assert_array_equal(first, kept)
    assert np.abs(view - seen).max() > 0.0


def test_generates_greedily(model_path: Path) -> None:
    tokens = decoder(model_path).generate([2, 33, 34], 6)
    plain, expected, step = PlainSession(model_path), [], [2, 33, 34]
    for _ in range(6):
        step = [int(plain.run(step).argmax())]
        expected += step
    assert tokens == expected
    assert len(decoder(model_path).generate([2], 1)) == 1


def test_settings_are_read_back(model_path: Path) -> None:
    bound = OnnxDecoder(model_path, threads=2, context_tokens=8)
    assert bound.threads == 2
    assert bound.providers == ("CPUExecutionProvider",)
    assert bound.load_ms > 0
    assert bound.vocabulary == bound.prefill(np.array([[2]])).shape[1]


def test_wrong_use_is_refused(model_path: Path) -> None:
    bound = decoder(model_path, context=4, batch=2)
    with pytest.raises(ValueError, match=r"prompt of shape \[1, 3\]; expected \[2, 1..4\]"):
        bound.prefill(np.array([[2, 3, 4]]))
    with pytest.raises(ValueError, match=r"expected \[2, 1..4\]"):
        bound.prefill(np.full((2, 5), 3))
    with pytest.raises(ValueError, match="pads elsewhere than on the right"):
        bound.prefill(np.full((2, 3), 3), np.array([[0, 1, 1], [1, 1, 1]]))
    bound.prefill(np.full((2, 4), 3))
    with pytest.raises(ValueError, match="the context of 4 tokens is full"):
        bound.decode([3, 3])


def test_needs_only_numpy_and_onnxruntime() -> None:
    """The file is copied to devices by itself."""
    import edgeicl.models.onnx_decoder as module

    tree = ast.parse(Path(str(module.__file__)).read_text())
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}
