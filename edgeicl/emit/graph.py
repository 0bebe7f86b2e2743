"""Nodes of an ONNX graph under construction, and the choice of operator for each weight format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from edgeicl import __version__
from edgeicl.emit.data_file import DataFile
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.models.anatomy import LABEL_HEAD
from edgeicl.numerics.packing import gather_shape, matmul_shape, pack_rows
from edgeicl.specs.quant_plan import Format

FUSED = "com.microsoft"
_IR_VERSION = 10
_OPSET = 21
ACCURACY_LEVEL_INT8 = 4


class GraphBuilder:
    """Collects nodes; weights go to a data file, constants of a few numbers into the graph itself."""

    def __init__(self, weights: QuantizedWeights, data: DataFile) -> None:
        self.weights = weights
        self.data = data
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Adds a node; the name of its first output."""
        name = f"/{next(out for out in outputs if out)}"
        self._nodes.append(
            helper.make_node(operator, list(inputs), list(outputs), name=name, domain=domain, **attributes)
        )
        return outputs[0]

    def constant(self, name: str, values: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> str:
        """A small constant, stored in the graph."""
        self._constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def parameter(self, name: str, *, first_row: int = 0) -> str:
        """A tensor of the model that has no group, in fp32, without the rows before `first_row`."""
        rows, *rest = self.weights.shape(name)
        shape = (rows - first_row, *rest)
        return self.data.add(
            name, shape, np.float32, lambda: self.weights.tensor(name)[first_row:].astype(np.float32)
        )

    def linear(self, source: str, group: str, output: str) -> str:
        """`source` [..., K] times the group's weights [N, K] transposed, plus its bias if any -> [..., N]."""
        format_ = self.weights.format(group)
        bias = self.parameter(f"{group}.bias") if self.weights.has(f"{group}.bias") else None
        if format_.block_size is not None:
            rows, columns = self.weights.shape(f"{group}.codes")
            codes, *scales = self._quantized(
                group, format_, matmul_shape(rows, columns, format_.bits, format_.block_size)
            )
            return self._matmul_nbits(source, group, format_, codes, scales, output, bias)
        weight = f"{group}.weight"
        n, k = self.weights.shape(weight)
        dtype = np.dtype(f"float{format_.bits}")
        self.data.add(weight, (k, n), dtype, lambda: self.weights.tensor(weight).astype(dtype).T, group=group)
        product = f"{output}.product" if bias is not None else output
        self.node("MatMul", [source, self._as_fp32(weight, format_)], [product])
        return product if bias is None else self.node("Add", [product, bias], [output])

    def layer_norm(self, source: str, parameters: str, output: str, *, epsilon: float) -> str:
        """LayerNorm over the last axis, with the parameters `.weight` and `.bias`."""
        weight, bias = (self.parameter(f"{parameters}.{kind}") for kind in ("weight", "bias"))
        inputs = [source, weight, bias]
        return self.node("LayerNormalization", inputs, [output], axis=-1, epsilon=epsilon)

    def embedding(self, ids: str, group: str, output: str) -> str:
        """Rows of the group's weights [V, H] for `ids` [B, T] -> [B, T, H]."""
        format_ = self.weights.format(group)
        if format_.block_size is not None:
            rows, columns = self.weights.shape(f"{group}.codes")
            codes, *scales = self._quantized(
                group, format_, gather_shape(rows, columns, format_.bits, format_.block_size)
            )
            filled_up = columns % format_.block_size > 0
            found = self.node(
                "GatherBlockQuantized", [codes, ids, *scales], [f"{output}.blocks" if filled_up else output],
                domain=FUSED, bits=format_.bits, block_size=format_.block_size, gather_axis=0, quantize_axis=1,
            )  # fmt: skip
            if not filled_up:
                return found
            part = [
                self.constant(f"{output}.{at}", [n]) for at, n in (("start", 0), ("end", columns), ("axis", -1))
            ]
            return self.node("Slice", [found, *part], [output])
        weight = f"{group}.weight"
        dtype = np.dtype(f"float{format_.bits}")
        shape = self.weights.shape(weight)
        self.data.add(weight, shape, dtype, lambda: self.weights.tensor(weight).astype(dtype), group=group)
        if format_.bits == 32:
            return self.node("Gather", [weight, ids], [output])
        halves = self.node("Gather", [weight, ids], [f"{output}.fp16"])
        return self.node("Cast", [halves], [output], to=TensorProto.FLOAT)

    def tied_head(self, source: str, group: str, output: str) -> str:
        """`source` [B, 1, H] times the bytes that `embedding` reads -> logits [B, 1, V]."""
        format_ = self.weights.format(group)
        if format_.block_size is not None:
            rows, columns = self.weights.shape(f"{group}.codes")
            shape = matmul_shape(rows, columns, format_.bits, format_.block_size)
            codes = self.data.alias(f"{group}.blocks", f"{group}.codes", shape)
            scales = [f"{group}.scales"] + ([] if format_.symmetric else [f"{group}.zero_points"])
            return self._matmul_nbits(source, group, format_, codes, scales, output, None)
        # Gemm reads [V, H] as it lies, where MatMul would want a transposed second copy; it takes matrices only
        axis = self.constant("sequence_axis", [1])
        flat = self.node("Squeeze", [source, axis], [f"{output}.input"])
        weight = self._as_fp32(f"{group}.weight", format_)
        product = self.node("Gemm", [flat, weight], [f"{output}.flat"], transB=1)
        return self.node("Unsqueeze", [product, axis], [output])

    def label_head(self, source: str, output: str) -> str:
        """`source` [B, 1, H] times the labels' own rows of the head -> logits [B, 1, L]."""
        rows, columns = self.weights.shape(LABEL_HEAD)
        weight = self.data.add(
            LABEL_HEAD, (columns, rows), np.float32, lambda: self.weights.tensor(LABEL_HEAD).T
        )
        return self.node("MatMul", [source, weight], [output])

    def model(
        self, name: str, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto],
        stored: Sequence[TensorProto],
    ) -> ModelProto:  # fmt: skip
        """The finished model; `stored` are the initializers in the data file."""
        graph: GraphProto = helper.make_graph(
            self._nodes, name, list(inputs), list(outputs), [*self._constants, *stored]
        )
        return helper.make_model(
            graph,
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(FUSED, 1)],
            producer_name="edgeicl",
            producer_version=__version__,
        )

    def _quantized(self, group: str, format_: Format, codes_shape: tuple[int, ...]) -> list[str]:
        """Stores codes in that shape, scales and zero points; their names, as both operators take them."""
        bits = format_.bits
        n, blocks = self.weights.shape(f"{group}.scales")
        names = [
            self.data.add(
                f"{group}.codes", codes_shape, np.uint8,
                lambda: pack_rows(self.weights.matrix(group).filled_codes, bits).reshape(codes_shape),
                group=group,
            ),
            self.data.add(
                f"{group}.scales", (n, blocks), np.float32,
                lambda: self.weights.tensor(f"{group}.scales"), group=group,
            ),
        ]  # fmt: skip
        if not format_.symmetric:
            names.append(
                self.data.add(
                    f"{group}.zero_points", (n, -(-blocks * bits // 8)), np.uint8,
                    lambda: pack_rows(self.weights.tensor(f"{group}.zero_points"), bits), group=group,
                )
            )  # fmt: skip
        return names

    def _matmul_nbits(
        self, source: str, group: str, format_: Format, codes: str, scales: Sequence[str], output: str,
        bias: str | None,
    ) -> str:  # fmt: skip
        n, k = self.weights.shape(f"{group}.codes")
        inputs = [source, codes, *scales]
        if bias is not None:
            inputs += [""] * (5 - len(inputs)) + [bias]
        return self.node(
            "MatMulNBits", inputs, [output], domain=FUSED,
            N=n, K=k, bits=format_.bits, block_size=format_.block_size, accuracy_level=ACCURACY_LEVEL_INT8,
        )  # fmt: skip

    def _as_fp32(self, weight: str, format_: Format) -> str:
        """Half-precision weights become fp32 when the session is made: the runtime folds the cast."""
        if format_.bits == 32:
            return weight
        return self.node("Cast", [weight], [f"{weight}.fp32"], to=TensorProto.FLOAT)
