"""OPT, lowered: learned positions, LayerNorm, ReLU."""

from __future__ import annotations

from edgeicl.emit.decoder_graph import DecoderGraph
from edgeicl.models.anatomy import EMBEDDING
from edgeicl.models.architectures.opt import DECODER, POSITION_OFFSET

_NORM_EPSILON = 1e-5


class OptGraph(DecoderGraph):
    """See `DecoderGraph`."""

    looks_up_positions = True
    _final_norm_name = f"{DECODER}.final_layer_norm"

    def _embed(self) -> tuple[str, str]:
        tokens = self._builder.embedding("input_ids", EMBEDDING, "tokens")
        table = self._builder.parameter(f"{DECODER}.embed_positions.weight", first_row=POSITION_OFFSET)
        return tokens, self._builder.node("Gather", [table, "positions"], ["position_rows"])

    def _norm_names(self, layer: int) -> tuple[str, str]:
        at = f"{DECODER}.layers.{layer}"
        return f"{at}.self_attn_layer_norm", f"{at}.final_layer_norm"

    def _norm(self, source: str, parameters: str, output: str) -> str:
        return self._builder.layer_norm(source, parameters, output, epsilon=_NORM_EPSILON)

    def _mlp(self, layer: int, source: str) -> str:
        name = f"layers.{layer}"
        widened = self._builder.linear(source, f"{name}.mlp.up", f"{name}.up")
        active = self._builder.node("Relu", [widened], [f"{name}.relu"])
        return self._builder.linear(active, f"{name}.mlp.down", f"{name}.down")
