"""Nodes of an ONNX graph under construction, and the choice of operator for each weight format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from edgeicl import __version__
from edgeicl.emit.branches import PROMPT, TOKEN
from edgeicl.emit.data_file import DataFile
from edgeicl.emit.integer_product import integer_product
from edgeicl.emit.opsets import FUSED, IR_VERSION, OPSET
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.models.anatomy import LABEL_HEAD, prompt_tensors
from edgeicl.numerics.packing import gather_shape, matmul_shape, pack_rows
from edgeicl.specs.quant_plan import Format

ACCURACY_LEVEL_INT8 = 4


class GraphBuilder:
    """Collects nodes; weights go to a data file, constants of a few numbers into the graph itself."""

    def __init__(self, weights: QuantizedWeights, data: DataFile) -> None:
        self.weights = weights
        self.data = data
        self.activations: type[np.float16] | type[np.float32] = (
            np.float16 if weights.plan.activation_bits == 16 else np.float32
        )
        self.nodes: list[NodeProto] = []
        self.scope = ""
        self.renamed: dict[str, str] = {}
        self._constants: dict[str, TensorProto] = {}

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
        given = [self.named(name) for name in inputs]
        if self.scope:
            self.renamed |= {name: f"{self.scope}/{name}" for name in outputs if name}
        made = [self.named(name) for name in outputs]
        name = f"/{next(out for out in made if out)}"
        self.nodes.append(helper.make_node(operator, given, made, name=name, domain=domain, **attributes))
        return outputs[0]

    @property
    def branch(self) -> str | None:
        """Of `by_tokens`, if nodes are added within one."""
        outermost = self.scope.partition("/")[0]
        return outermost if outermost in (PROMPT, TOKEN) else None

    def keep(self, node: NodeProto) -> None:
        """Adds a node that was made elsewhere, as it is."""
        self.nodes.append(node)

    @property
    def constants(self) -> list[TensorProto]:
        """The small tensors of the graph itself."""
        return list(self._constants.values())

    def named(self, name: str) -> str:
        """The name that a value has in the graph: within a branch of it, one of the branch's own."""
        return self.renamed.get(name, name)

    def constant(self, name: str, values: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> str:
        """A small constant, stored in the graph."""
        self._constants[name] = numpy_helper.from_array(np.asarray(values, dtype=dtype), name)
        return name

    def parameter(self, name: str, *, first_row: int = 0) -> str:
        """A tensor of the model that has no group, without the rows before `first_row`."""
        if self.branch is not None and self.data.has(name):
            return name
        rows, *rest = self.weights.shape(name)
        shape = (rows - first_row, *rest)
        return self.data.add(
            name,
            shape,
            self.activations,
            lambda: self.weights.tensor(name)[first_row:].astype(self.activations),
        )

    def linear(self, source: str, group: str, output: str, *, rectified: bool = False) -> str:
        """`source` [..., K] times the group's weights [N, K] transposed, plus its bias if any -> [..., N].

        `rectified`: of what a ReLU makes of `source`.
        """
        format_, tensors = self._read(group)
        bias = self.parameter(f"{group}.bias") if self.weights.has(f"{group}.bias") else None
        if format_.by_row:
            return integer_product(self, source, group, output, bias, tensors=tensors, rectified=rectified)
        if rectified:
            source = self.node("Relu", [source], [f"{output}.relu"])
        if format_.quantized:
            rows, columns = self.weights.shape(f"{group}.codes")
            shape = matmul_shape(rows, columns, format_.bits, format_.block_of(columns))
            codes, *scales = self._quantized(group, format_, shape)
            return self._matmul_nbits(source, group, format_, codes, scales, output, bias)
        weight = f"{group}.weight"
        n, k = self.weights.shape(weight)
        dtype = np.dtype(f"float{format_.bits}")
        self.data.add(weight, (k, n), dtype, lambda: self.weights.tensor(weight).astype(dtype).T, group=group)
        product = f"{output}.product" if bias is not None else output
        self.node("MatMul", [source, self._as_activations(weight, format_)], [product])
        return product if bias is None else self.node("Add", [product, bias], [output])

    def layer_norm(self, source: str, parameters: str, output: str, *, epsilon: float) -> str:
        """LayerNorm over the last axis, with the parameters `.weight` and `.bias`."""
        weight, bias = (self.parameter(f"{parameters}.{kind}") for kind in ("weight", "bias"))
        inputs = [source, weight, bias]
        return self.node("LayerNormalization", inputs, [output], axis=-1, epsilon=epsilon)

    def embedding(self, ids: str, group: str, output: str) -> str:
        """Rows of the group's weights [V, H] for `ids` [B, T] -> [B, T, H]."""
        format_ = self.weights.format(group)
        if format_.quantized:
            rows, columns = self.weights.shape(f"{group}.codes")
            block = format_.block_of(columns)
            codes, *scales = self._quantized(group, format_, gather_shape(rows, columns, format_.bits, block))
            filled_up = columns % block > 0
            found = self.node(
                "GatherBlockQuantized", [codes, ids, *scales], [f"{output}.blocks" if filled_up else output],
                domain=FUSED, bits=format_.bits, block_size=block, gather_axis=0, quantize_axis=1,
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
        if dtype == self.activations:
            return self.node("Gather", [weight, ids], [output])
        halves = self.node("Gather", [weight, ids], [f"{output}.fp16"])
        return self.node("Cast", [halves], [output], to=TensorProto.FLOAT)

    def tied_head(self, source: str, group: str, output: str) -> str:
        """`source` [B, 1, H] times the bytes that `embedding` reads -> logits [B, 1, V]."""
        format_ = self.weights.format(group)
        if format_.quantized:
            rows, columns = self.weights.shape(f"{group}.codes")
            shape = matmul_shape(rows, columns, format_.bits, format_.block_of(columns))
            codes = self.data.alias(f"{group}.blocks", f"{group}.codes", shape)
            scales = [f"{group}.scales"] + ([] if format_.symmetric else [f"{group}.zero_points"])
            return self._matmul_nbits(source, group, format_, codes, scales, output, None)
        # Gemm reads [V, H] as it lies, where MatMul would want a transposed second copy; it takes matrices only
        axis = self.constant("sequence_axis", [1])
        flat = self.node("Squeeze", [source, axis], [f"{output}.input"])
        weight = self._as_activations(f"{group}.weight", format_)
        product = self.node("Gemm", [flat, weight], [f"{output}.flat"], transB=1)
        return self.node("Unsqueeze", [product, axis], [output])

    def tied_product(self, source: str, group: str, output: str) -> str:
        """`source` [B, T, H] times the bytes that `embedding` reads -> [B, T, V]."""
        format_ = self.weights.format(group)
        if format_.quantized:
            return self.tied_head(source, group, output)
        columns = self.node(
            "Transpose", [self._as_activations(f"{group}.weight", format_)], [f"{output}.weight"]
        )
        return self.node("MatMul", [source, columns], [output])

    def label_head(self, source: str, output: str) -> str:
        """`source` [B, 1, H] times the labels' own rows of the head -> logits [B, 1, L]."""
        rows, columns = self.weights.shape(LABEL_HEAD)
        weight = self.data.add(
            LABEL_HEAD, (columns, rows), np.float32, lambda: self.weights.tensor(LABEL_HEAD).T
        )
        return self.node("MatMul", [self.as_fp32(source), weight], [output])

    def logits(self, head: Callable[[str], str]) -> str:
        """What `head` computes under the name it is given, as the output `logits`."""
        if self.activations is np.float32:
            return head("logits")
        return self.node("Cast", [head("logits.fp16")], ["logits"], to=TensorProto.FLOAT)

    def as_fp32(self, source: str) -> str:
        """`source` in fp32, as the logits are whatever the layers compute in."""
        if self.activations is np.float32:
            return source
        return self.node("Cast", [source], [f"{source}.fp32"], to=TensorProto.FLOAT)

    def model(
        self, name: str, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto],
        stored: Sequence[TensorProto],
    ) -> ModelProto:  # fmt: skip
        """The finished model; `stored` are the initializers in the data file."""
        graph: GraphProto = helper.make_graph(
            self.nodes,
            name,
            list(inputs),
            list(outputs),
            [*self._constants.values(), *stored],
        )
        return helper.make_model(
            graph,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, 1)],
            producer_name="edgeicl",
            producer_version=__version__,
        )

    def _read(self, group: str) -> tuple[Format, str]:
        """What is read of the group here: a format, and what the names of its tensors start with."""
        if self.branch == PROMPT:
            return self.weights.prompt_format, prompt_tensors(group)
        return self.weights.format(group), group

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
                f"{group}.scales", (n, blocks), self.activations,
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
            N=n, K=k, bits=format_.bits, block_size=format_.block_size, accuracy_level=self._accuracy_level,
        )  # fmt: skip

    @property
    def _accuracy_level(self) -> int:
        """What products round activations to: int8, unless half precision is there to be used."""
        return ACCURACY_LEVEL_INT8 if self.activations is np.float32 else 0

    def _as_activations(self, weight: str, format_: Format) -> str:
        """Half-precision weights become fp32 when the session is made: the runtime folds the cast."""
        if np.dtype(f"float{format_.bits}") == self.activations:
            return weight
        return self.node("Cast", [weight], [f"{weight}.fp32"], to=TensorProto.FLOAT)
