"""Two ways through the layers in one graph: one for a prompt of several tokens, one for a single token.

Each is a branch of one `If` around all layers. The layers' weights are there twice; all else that both branches
read is stored once. Embedding, last norm and head stand outside: the runtime would pack them for each branch.
All tensors belong to the graph outside: of a branch's own tensors the runtime keeps the file's bytes as well
(355 MB in place of 293 at the OPT-125M shape).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onnx import NodeProto, TensorProto, helper

if TYPE_CHECKING:
    from edgeicl.emit.graph import GraphBuilder

PROMPT, TOKEN = "prompt", "token"


def by_tokens(
    builder: GraphBuilder, build: Callable[[], Sequence[str | None]], *, presents: Sequence[str]
) -> list[str | None]:
    """What `build` adds, once for each branch; the values that it returns, which the whole graph then has.

    `presents` are outputs of the graph that the branches make as well. `step_tokens` [1] says how many tokens
    are read.
    """
    node = builder.node
    node("Greater", ["step_tokens", builder.constant("single", [1])], ["is_prompt"])
    graphs = []
    for branch in (PROMPT, TOKEN):
        with _names_of(builder, branch) as nodes:
            values = build()
            outputs = [builder.named(value) for value in values if value is not None]
            outputs += [builder.named(present) for present in presents]
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graphs.append(helper.make_graph(nodes, branch, [], infos))
    found = [value and f"{value}.either" for value in values]
    node(
        "If", ["is_prompt"], [*(value for value in found if value), *presents],
        then_branch=graphs[0], else_branch=graphs[1],
    )  # fmt: skip
    return found


@contextmanager
def _names_of(builder: GraphBuilder, branch: str) -> Iterator[list[NodeProto]]:
    """Nodes added within go to the list, and what they make is named after the branch."""
    outside, builder.nodes = builder.nodes, []
    builder.branch, builder.renamed = branch, {}
    try:
        yield builder.nodes
    finally:
        builder.nodes, builder.branch, builder.renamed = outside, None, {}
