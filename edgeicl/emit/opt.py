"""OPT, lowered: learned positions, LayerNorm before the blocks or, in the 350M model, after them, and ReLU."""

from __future__ import annotations

from edgeicl.emit.decoder_graph import DecoderGraph
from edgeicl.models.anatomy import EMBEDDING, PROJECT_IN, PROJECT_OUT
from edgeicl.models.architectures.opt import DECODER, POSITION_OFFSET, has_last_norm

_NORM_EPSILON = 1e-5


class OptGraph(DecoderGraph):
    """See `DecoderGraph`."""

    looks_up_positions = True
    _final_norm_name = f"{DECODER}.final_layer_norm"

    def _embed(self) -> tuple[str, str]:
        tokens = self._builder.embedding("input_ids", EMBEDDING, "tokens")
        if self.anatomy.projected:
            tokens = self._builder.linear(tokens, PROJECT_IN, "tokens.projected")
        table = self._builder.parameter(f"{DECODER}.embed_positions.weight", first_row=POSITION_OFFSET)
        return tokens, self._builder.node("Gather", [table, "positions"], ["position_rows"])

    def _layer(self, layer: int, residual: str, delta: str | None) -> tuple[str, str | None]:
        if self.anatomy.config["do_layer_norm_before"]:
            return super()._layer(layer, residual, delta)
        name = f"layers.{layer}"
        after_attention, after_mlp = self._norm_names(layer)
        hidden = self._sum(residual, delta, f"{name}.hidden")
        attended, hidden = self._attention(layer, hidden, hidden)
        found = self._builder.linear(attended, f"{name}.attention.output", f"{name}.attention_output")
        hidden, _ = self._add_and_norm(hidden, found, after_attention, f"{name}.attention")
        return self._add_and_norm(hidden, self._mlp(layer, hidden), after_mlp, f"{name}.mlp")[0], None

    def _finish(self, residual: str, delta: str | None) -> str:
        if has_last_norm(self.anatomy.config):
            hidden = super()._finish(residual, delta)
        else:
            hidden = self._sum(residual, delta, "final.residual")
        if not self.anatomy.projected:
            return hidden
        return self._builder.linear(hidden, PROJECT_OUT, "final.projected")

    def _norm_names(self, layer: int) -> tuple[str, str]:
        at = f"{DECODER}.layers.{layer}"
        return f"{at}.self_attn_layer_norm", f"{at}.final_layer_norm"

    def _norm(self, source: str, parameters: str, output: str) -> str:
        return self._builder.layer_norm(source, parameters, output, epsilon=_NORM_EPSILON)

    def _mlp(self, layer: int, source: str) -> str:
        name = f"layers.{layer}"
        widened = self._builder.linear(source, f"{name}.mlp.up", f"{name}.up")
        return self._builder.linear(widened, f"{name}.mlp.down", f"{name}.down", rectified=True)
