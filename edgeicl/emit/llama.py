"""The Llama family, lowered: rotary positions within attention, RMSNorm, gated MLP with one kernel for both."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from edgeicl.emit.decoder_graph import DecoderGraph
from edgeicl.emit.opsets import FUSED
from edgeicl.models.anatomy import EMBEDDING
from edgeicl.models.rotary import inverse_frequencies


class LlamaGraph(DecoderGraph):
    """See `DecoderGraph`."""

    looks_up_positions = False
    _final_norm_name = "model.norm"

    def _embed(self) -> tuple[str, None]:
        self._rotary_tables()
        return self._builder.embedding("input_ids", EMBEDDING, "tokens"), None

    def _rotary_tables(self) -> None:
        """Cosines and sines [positions, head size / 2].

        The runtime computes them once, when it loads the graph: in the file they are a few numbers.
        """
        node, constant = self._builder.node, self._builder.constant
        radians = inverse_frequencies(self.anatomy.config, self.anatomy.head_size).numpy()
        steps = [constant("first_position", 0), constant("position_count", self.anatomy.positions)]
        node("Range", [*steps, constant("position_step", 1)], ["all_positions"])
        node("Cast", ["all_positions"], ["all_positions.fp32"], to=TensorProto.FLOAT)
        node("Unsqueeze", ["all_positions.fp32", "one"], ["position_column"])
        node("Mul", ["position_column", constant("radians", radians[None], np.float32)], ["angles"])
        for function, table in (("Cos", "cosines"), ("Sin", "sines")):
            if self._builder.activations is np.float32:
                node(function, ["angles"], [table])
            else:
                node("Cast", [node(function, ["angles"], [f"{table}.fp32"])], [table], to=TensorProto.FLOAT16)

    def _rotary(self) -> tuple[list[str], dict[str, Any]]:
        return ["cosines", "sines"], {"do_rotary": 1}

    def _heads(self, layer: int, qkv: str) -> list[str]:
        anatomy, name, norms = self.anatomy, f"layers.{layer}", f"model.layers.{layer}.self_attn"
        if not anatomy.head_norms:
            return [qkv, "", ""]
        widths = [anatomy.heads * anatomy.head_size, anatomy.kv_width, anatomy.kv_width]
        sizes = self._builder.constant(f"{name}.qkv_widths", widths)
        query, key, value = (f"{name}.{part}" for part in ("query", "key", "value"))
        self._builder.node("Split", [qkv, sizes], [query, key, value], axis=-1)
        return [
            self._normed_heads(query, f"{norms}.q_norm"),
            self._normed_heads(key, f"{norms}.k_norm"),
            value,
        ]

    def _normed_heads(self, source: str, parameters: str) -> str:
        """[B, T, heads * D] with each head's D numbers normed."""
        node, constant = self._builder.node, self._builder.constant
        apart = constant(f"{source}.apart", [0, 0, -1, self.anatomy.head_size])
        together = constant(f"{source}.together", [0, 0, -1])
        heads = node("Reshape", [source, apart], [f"{source}.heads"])
        return node(
            "Reshape", [self._norm(heads, parameters, f"{source}.norm"), together], [f"{source}.normed"]
        )

    def _norm_names(self, layer: int) -> tuple[str, str]:
        at = f"model.layers.{layer}"
        return f"{at}.input_layernorm", f"{at}.post_attention_layernorm"

    def _norm(self, source: str, parameters: str, output: str) -> str:
        epsilon = float(self.anatomy.config["rms_norm_eps"])
        weight = self._builder.parameter(f"{parameters}.weight")
        # onnxruntime's name for RMSNorm, which it has had for longer than ONNX has its own
        return self._builder.node(
            "SimplifiedLayerNormalization", [source, weight], [output], axis=-1, epsilon=epsilon
        )

    def _mlp(self, layer: int, source: str) -> str:
        node, name = self._builder.node, f"layers.{layer}"
        both = self._builder.linear(source, f"{name}.mlp.gate_up", f"{name}.gate_up")
        gate, up = f"{name}.gate", f"{name}.up"
        node("Split", [both], [gate, up], axis=-1, num_outputs=2)
        # x * sigmoid(x) in one kernel
        active = node("QuickGelu", [gate], [f"{name}.silu"], domain=FUSED, alpha=1.0)
        inner = node("Mul", [active, up], [f"{name}.gated"])
        return self._builder.linear(inner, f"{name}.mlp.down", f"{name}.down")
