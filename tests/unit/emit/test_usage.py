"""The model card's code for onnxruntime-genai, where its tokenizer misreads and where it needs a GPU."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeicl.emit.genai_process import GenaiRun
from edgeicl.emit.generation_checks import GENAI_READS_TEXT, _tokenizer_deviations
from edgeicl.emit.model_card import model_card
from edgeicl.emit.usage import usage
from edgeicl.specs.manifest import Manifest, TaskFile
from edgeicl.specs.quant_plan import Format, QuantPlan
from tests.unit.emit.test_emit_stage import INT8, checks_of, make_recipe, make_target, run
from tests.unit.emit.tiny_opt import Tiny


def _genai_code(text: str) -> str:
    return str(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[-1])


def test_a_misreading_tokenizer_is_not_in_the_card(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    tiny, recipe, target = quantize(INT8), make_recipe(tmp_path), make_target()
    output = run(tiny, tmp_path, recipe, target)
    checks = checks_of(output)
    misread = GenaiRun(generated=[], tokenizer_ids=[[-1]], failure="")
    manifest = Manifest(
        name="tiny",
        target="desk",
        seed=0,
        recipe_digest="r",
        target_digest="t",
        versions={},
        files={},
        plan=QuantPlan.model_validate_json((tiny.quantized / "plan.json").read_text()),
        ledger=checks.ledger,
        parity=checks.parity,
        accuracy=checks.accuracy,
        deviations=tuple(_tokenizer_deviations(misread, output.path, ["the dog"])),
    )
    assert [found.asked for found in manifest.deviations] == [GENAI_READS_TEXT]

    def card(of: Manifest) -> str:
        return model_card(
            output.path, of, recipe=recipe, target=target, source=tiny.student, base_folder=tmp_path
        )

    code = _genai_code(card(manifest))
    assert "og.Tokenizer" not in code
    assert 'Tokenizer.from_file("tokenizer.json")' in code
    assert "misreads this `tokenizer.json`" in card(manifest)
    plain = card(manifest.model_copy(update={"deviations": ()}))
    assert "og.Tokenizer(model)" in _genai_code(plain)
    assert "misreads" not in plain
    if importlib.util.find_spec("onnxruntime_genai"):
        code = code.replace('"..."', '"the dog"').replace("max_length=64", "max_length=16")
        done = subprocess.run([sys.executable, "-c", code], cwd=output.path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


TASK = {"pattern": "{text} answer:", "verbalizers": {"yes": " Yes"}, "verbalizer_tokens": {"yes": [3]}}
TOKENS = {"kind": "tokens", "tokens": [4], "longest_query_tokens": 9}


@pytest.mark.parametrize("prefix", [None, TOKENS])
def test_what_cuda_needs_is_told(prefix: dict[str, Any] | None) -> None:
    given = TaskFile.model_validate({**TASK, "separator": "\n", "prefix": prefix})
    told = "it needs onnxruntime-genai-cuda and a GPU"
    assert told in usage(given, "cuda")
    assert told not in usage(given)
    code = _genai_code(usage(given, genai_reads_text=False))
    compile(code, "card", "exec")
    assert "og.Tokenizer" not in code
    assert ("add_special_tokens=False" in code) is (prefix is not None)
