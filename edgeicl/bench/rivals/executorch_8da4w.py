"""ExecuTorch with XNNPACK: weights in int4 by groups, activations in int8 as they come (8da4w), head included.

The lookup table is int8, as in ExecuTorch's own recipes for language models; keys and values stand in buffers
of as many positions as the run has. OPT alone: see `executorch_opt`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeicl.bench.protocol import Ids
from edgeicl.bench.rivals.rival import Engine, Logits, Rival, RivalEnvironment, SteppedEngine

EXECUTORCH = RivalEnvironment(
    "executorch",
    ("executorch==1.5.1", "torch==2.13.0", "torchao==0.18.0", "transformers==5.23.0", "safetensors"),
    "each release is built for one version of torch and of torchao",
)
RIVALS = tuple(
    Rival(
        name,
        f"ExecuTorch, XNNPACK 8da4w in groups of {group}, custom attention over a key/value buffer",
        EXECUTORCH,
        __name__,
        logit_tolerance=0.45,
        settings={"group_size": group},
        fixes_context=True,
    )
    for name, group in (("executorch-8da4w", 128), ("executorch-8da4w-g32", 32))
)
IMPORTS = ("torch", "executorch.extension.pybindings._C")
_PROGRAM = "model.pte"
_WEIGHTS = "int4"


def build(checkpoint: Path, folder: Path, settings: Mapping[str, Any], context_tokens: int) -> None:
    """Exported, quantized by torchao, lowered to XNNPACK."""
    found = json.loads((checkpoint / "config.json").read_text())["model_type"]
    if found != "opt":
        raise SystemExit(f"found an architecture {found}; this rival exports OPT alone")

    import executorch.extension.llm.custom_ops.custom_ops
    import executorch.kernels.quantized  # noqa: F401
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
        XnnpackDynamicallyQuantizedPartitioner,
        XnnpackPartitioner,
    )
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.passes import MemoryPlanningPass
    from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass
    from transformers import AutoModelForCausalLM

    from edgeicl.bench.rivals.executorch_opt import StaticCacheOpt

    whole = AutoModelForCausalLM.from_pretrained(str(checkpoint), dtype=torch.float32).eval()
    model = StaticCacheOpt(whole, context_tokens).eval()
    _quantize(model, settings["group_size"])
    tokens = torch.export.Dim("tokens", min=1, max=context_tokens - 1)
    with torch.no_grad():
        exported = torch.export.export(
            model,
            (torch.zeros((1, 2), dtype=torch.int64), torch.tensor([0])),
            dynamic_shapes=({1: tokens}, None),
            strict=False,
        )
    edge = to_edge_transform_and_lower(
        exported,
        partitioner=[XnnpackDynamicallyQuantizedPartitioner(), XnnpackPartitioner()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
    )
    lowered = edge.to_executorch(
        ExecutorchBackendConfig(
            memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
            sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass(),
        )
    )
    with (folder / _PROGRAM).open("wb") as stream:
        lowered.write_to_file(stream)


def _quantize(model: Any, group_size: int) -> None:
    """Linear layers to 8da4w, in place."""
    import torch
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    linear = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=getattr(torch, _WEIGHTS), weight_granularity=PerGroup(group_size)
    )
    quantize_(model, linear)


def load(folder: Path, settings: Mapping[str, Any], threads: int, context_tokens: int) -> Engine:
    """The program in `folder`, ready to run."""
    return ProgramDecoder(folder / _PROGRAM, threads)


class ProgramDecoder(SteppedEngine):
    """A loaded program; imports no more of ExecuTorch than an app would."""

    def __init__(self, program: Path, threads: int) -> None:
        import torch
        from executorch.extension.pybindings import _C

        package = Path(_C.__file__).parents[2]
        for library in (
            "extension/llm/custom_ops/libcustom_ops_aot_lib.so",
            "kernels/quantized/libquantized_ops_aot_lib.so",
        ):
            torch.ops.load_library(str(package / library))  # type: ignore[no-untyped-call]
        torch.set_num_threads(threads)
        _C._unsafe_reset_threadpool(threads)
        self.threads: int = _C._threadpool_get_thread_count()
        self._torch = torch
        self._module = _C._load_for_executorch(str(program))
        self.reset()

    def reset(self) -> None:
        self._length = 0

    def read(self, ids: Ids) -> Logits:
        start = self._torch.tensor([self._length])
        (found,) = self._module.forward((self._torch.from_numpy(np.ascontiguousarray(ids)), start))
        self._length += ids.shape[1]
        logits: Logits = found[:, -1].numpy()
        return logits
