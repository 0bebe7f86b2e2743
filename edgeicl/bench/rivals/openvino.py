"""OpenVINO with compressed weights: optimum-intel's export, whose key/value cache is state inside the model.

int8: weights per channel. int4: all layers, embedding and head among them, symmetric in groups of 128.
Activations are quantized as they come, in groups of 128, which is its fastest; on processors with bf16 it
computes in that, and keeps keys and values in 8 bits, as it does unless told otherwise. The head runs on the
last token of a prompt alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeicl.bench.protocol import Ids
from edgeicl.bench.rivals.rival import Engine, Logits, Rival, RivalEnvironment, SteppedEngine

OPENVINO = RivalEnvironment(
    "openvino",
    ("openvino==2026.4.1", "optimum-intel==2.2.0", "nncf==3.4.0", "torch==2.13.0"),
    "optimum-intel needs transformers below 5.6, and other tools' exporters pin another optimum",
)
_INT4 = ("--weight-format", "int4", "--group-size", "128", "--ratio", "1.0", "--sym", "--all-layers")
RIVALS = (
    Rival(
        "openvino-int8",
        "OpenVINO, int8 weights per channel, dynamic quantization in groups of 128",
        OPENVINO,
        __name__,
        logit_tolerance=0.1,
        settings={"export": ["--weight-format", "int8"], "activation_group": 128},
    ),
    Rival(
        "openvino-int4",
        "OpenVINO, int4 weights in groups of 128 in all layers, dynamic quantization in groups of 128",
        OPENVINO,
        __name__,
        logit_tolerance=0.45,
        settings={"export": list(_INT4), "activation_group": 128},
    ),
)
IMPORTS = ("openvino",)
_OPTIMUM_CLI = "from optimum.commands.optimum_cli import main; main()"
_TASK = "text-generation-with-past"


def build(checkpoint: Path, folder: Path, settings: Mapping[str, Any], context_tokens: int) -> None:
    """Exported and compressed by optimum-intel's own command."""
    command = [sys.executable, "-c", _OPTIMUM_CLI, "export", "openvino"]
    command += ["--model", str(checkpoint), "--task", _TASK, *settings["export"], str(folder)]
    subprocess.run(command, stdout=sys.stderr, check=True)


def load(folder: Path, settings: Mapping[str, Any], threads: int, context_tokens: int) -> Engine:
    """The compiled model, ready to run."""
    return StatefulDecoder(folder / "openvino_model.xml", settings["activation_group"], threads)


def _with_last_logits(model: Any) -> Any:
    """The model with its head on the last token alone, as OpenVINO's own pipelines for generation run it."""
    from openvino import opset13

    head = model.output("logits").get_node().input_value(0).get_node()
    while head.get_type_name() != "MatMul":
        head = head.input_value(0).get_node()
    start, stop, step, axis = (opset13.constant(np.array([n])) for n in (-1, np.iinfo(np.int64).max, 1, 1))
    last = opset13.slice(head.input_value(0), start, stop, step, axis)
    head.input(0).replace_source_output(last.output(0))
    model.validate_nodes_and_infer_types()
    return model


class StatefulDecoder(SteppedEngine):
    """One request of a compiled model that remembers what it has read."""

    def __init__(self, model: Path, activation_group: int, threads: int) -> None:
        import openvino

        core = openvino.Core()
        compiled = core.compile_model(
            _with_last_logits(core.read_model(str(model))),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": str(threads),
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": "1",
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(activation_group),
            },
        )
        self.threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        self._request = compiled.create_infer_request()
        names = {name for port in compiled.inputs for name in port.get_names()}
        self._wants_positions, self._wants_beam = "position_ids" in names, "beam_idx" in names
        self._length = 0

    def reset(self) -> None:
        self._request.reset_state()
        self._length = 0

    def read(self, ids: Ids) -> Logits:
        total = self._length + ids.shape[1]
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": np.ones((1, total), np.int64)}
        if self._wants_positions:
            inputs["position_ids"] = np.arange(self._length, total, dtype=np.int64)[None]
        if self._wants_beam:
            inputs["beam_idx"] = np.zeros(1, np.int32)
        self._request.infer(inputs, share_inputs=True)
        self._length = total
        # A copy: the tensor's memory is the request's.
        logits: Logits = self._request.get_tensor("logits").data[:, -1].copy()
        return logits
