"""Two ways to the same values in one graph: branches of an `If`, the nodes of one of which are run.

All tensors belong to the graph outside: of a branch's own tensors the runtime keeps the file's bytes as well
(355 MB in place of 293 at the OPT-125M shape with two layouts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onnx import GraphProto, NodeProto, TensorProto, helper

if TYPE_CHECKING:
    from edgeicl.emit.graph import GraphBuilder

PROMPT, TOKEN = "prompt", "token"
IS_PROMPT = "is_prompt"
"""Whether several tokens are read."""


def by_tokens(
    builder: GraphBuilder, build: Callable[[], Sequence[str | None]], *, presents: Mapping[str, int]
) -> list[str | None]:
    """What `build` adds, once for a prompt of several tokens and once for a single one; the values it returns.

    The layers' weights are there twice, and each branch reads its own; all else that both read is stored once.
    Embedding, last norm and head stand outside: the runtime would pack them for each branch. `presents` are
    outputs of the graph that the branches make as well, with their types.
    """
    values: list[str | None] = []

    def add() -> dict[str, int]:
        values[:] = build()
        return {**dict.fromkeys(filter(None, values), int(TensorProto.FLOAT)), **presents}

    either(builder, IS_PROMPT, **dict.fromkeys((PROMPT, TOKEN), add))
    return values


def either(builder: GraphBuilder, condition: str, **branches: Callable[[], Mapping[str, int]]) -> None:
    """The nodes that the first of two branches adds where `condition` [1] holds, those of the second elsewhere.

    Each returns the values that it makes and their types in ONNX; both the same, which are had under the same
    names outside.
    """
    graphs: list[GraphProto] = []
    made: Mapping[str, int] = {}
    for name, build in branches.items():
        with _names_of(builder, name) as nodes:
            made = build()
            infos = [helper.make_tensor_value_info(builder.named(v), kind, None) for v, kind in made.items()]
        graphs.append(helper.make_graph(nodes, name, [], infos))
    then, other = graphs
    builder.node("If", [condition], [*made], then_branch=then, else_branch=other)


@contextmanager
def _names_of(builder: GraphBuilder, branch: str) -> Iterator[list[NodeProto]]:
    """Nodes added within go to the list, and what they make is named after the branch."""
    outside = builder.nodes, builder.scope, builder.renamed
    builder.nodes = []
    builder.scope = f"{builder.scope}/{branch}" if builder.scope else branch
    builder.renamed = dict(builder.renamed)
    try:
        yield builder.nodes
    finally:
        builder.nodes, builder.scope, builder.renamed = outside
