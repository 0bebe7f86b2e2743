"""GPT-2, lowered: learned positions, LayerNorm, GELU in its tanh form."""

from __future__ import annotations

from edgeicl.emit.decoder_graph import DecoderGraph
from edgeicl.models.anatomy import EMBEDDING
from edgeicl.models.architectures.gpt2 import DECODER


class Gpt2Graph(DecoderGraph):
    """See `DecoderGraph`."""

    looks_up_positions = True
    _final_norm_name = f"{DECODER}.ln_f"

    def _embed(self) -> tuple[str, str]:
        tokens = self._builder.embedding("input_ids", EMBEDDING, "tokens")
        table = self._builder.parameter(f"{DECODER}.wpe.weight")
        return tokens, self._builder.node("Gather", [table, "positions"], ["position_rows"])

    def _norm_names(self, layer: int) -> tuple[str, str]:
        return f"{DECODER}.h.{layer}.ln_1", f"{DECODER}.h.{layer}.ln_2"

    def _norm(self, source: str, parameters: str, output: str) -> str:
        epsilon = float(self.anatomy.config["layer_norm_epsilon"])
        return self._builder.layer_norm(source, parameters, output, epsilon=epsilon)

    def _mlp(self, layer: int, source: str) -> str:
        name = f"layers.{layer}"
        widened = self._builder.linear(source, f"{name}.mlp.up", f"{name}.up")
        active = self._builder.node("Gelu", [widened], [f"{name}.gelu"], approximate="tanh")
        return self._builder.linear(active, f"{name}.mlp.down", f"{name}.down")
