"""The optimum export with onnxruntime's dynamic int8.

`optimum-int8` is what the two tools give by themselves: the export ties head and embedding, so the head is no
weight that the quantizer sees, and stays in fp32. `optimum-int8-untied` keeps a copy of the head that is
quantized too: faster, and the best found for this rival (per-channel or unsigned weights gain nothing, and a
quantized embedding is slower in both).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgeicl.bench.protocol import Ids
from edgeicl.bench.rivals.rival import Engine, Logits, Rival, RivalEnvironment, SteppedEngine

OPTIMUM = RivalEnvironment(
    "optimum",
    (
        *("optimum-onnx==0.1.0", "optimum==2.1.0", "torch==2.13.0", "transformers==4.57.6"),
        *("accelerate", "onnxruntime", "onnx"),
    ),
    "optimum-onnx needs transformers below 4.58",
)
RIVALS = (
    Rival(
        "optimum-int8",
        "optimum-onnx export (text-generation-with-past), dynamic int8 MatMul weights",
        OPTIMUM,
        __name__,
        logit_tolerance=0.1,
        settings={"untied": False},
    ),
    Rival(
        "optimum-int8-untied",
        "optimum-onnx export without post-processing, dynamic int8 weights, head included",
        OPTIMUM,
        __name__,
        logit_tolerance=0.1,
        settings={"untied": True},
    ),
)
IMPORTS = ("onnxruntime",)
_TASK = "text-generation-with-past"


def build(checkpoint: Path, folder: Path, settings: Mapping[str, Any], context_tokens: int) -> None:
    """Exported by optimum's own command, quantized by onnxruntime."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory(dir=folder) as exported:
        command = [sys.executable, "-m", "optimum.exporters.onnx", "--model", str(checkpoint), "--task", _TASK]
        command += [*(["--no-post-process"] if settings["untied"] else []), exported]
        # It fails where its own check finds a difference above 1e-5; the graph is there all the same.
        subprocess.run(command, stdout=sys.stderr, check=False)
        quantize_dynamic(
            str(Path(exported) / "model.onnx"),
            str(folder / "model.onnx"),
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            per_channel=False,
        )


def load(folder: Path, settings: Mapping[str, Any], threads: int, context_tokens: int) -> Engine:
    """A session of the quantized graph."""
    return ExportedDecoder(folder / "model.onnx", threads, context_tokens)


class ExportedDecoder(SteppedEngine):
    """The exported graph, whose keys and values grow by one position a step."""

    def __init__(self, graph: Path, threads: int, context_tokens: int) -> None:
        from edgeicl.models.growing_decoder import GrowingDecoder

        self._decoder = GrowingDecoder(graph, threads=threads, context_tokens=context_tokens)
        self.threads = self._decoder.threads

    def reset(self) -> None:
        self._decoder.reset()

    def read(self, ids: Ids) -> Logits:
        return self._decoder.prefill(ids) if ids.shape[1] > 1 else self._decoder.decode(ids[0])
