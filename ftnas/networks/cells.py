"""One cell: preprocessed inputs, edges that hold operators, nodes that sum them, a concatenated output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ftnas.networks.operators import BUILDERS, FactorizedReduce, ReluConv, Style
from ftnas.quantization import Blend, QuantizedSum
from ftnas.space.genotype import Cell, Edge
from ftnas.space.search_space import SearchSpace

EdgeOperators = Mapping[tuple[int, int], Iterable[str]]  # (node, source) -> operators that the edge holds


@dataclass(frozen=True)
class Mixture:
    """All operators of all edges at once, weighted (the continuous relaxation of DARTS, arXiv 1806.09055).

    ``operators`` ``[edges, operators]`` and ``quantization`` ``[edges, choices]``, rows summing to one; edges in
    the order of ``all_edges``.
    """

    operators: Tensor
    quantization: Tensor


def all_edges(nodes: int) -> tuple[tuple[int, int], ...]:
    """Return every (node, source) pair of a cell with ``nodes`` nodes, whose ids begin at 2."""
    return tuple((node, source) for node in range(2, nodes + 2) for source in range(node))


def preprocess(space: SearchSpace, channels_in: int, channels_out: int, *, stride: int, style: Style) -> nn.Module:
    """Return the module that brings a cell's input to its channels and size."""
    if space.preprocess.operator == "relu_conv_bn_1x1" and stride == 2:
        return FactorizedReduce(channels_in, channels_out, style=style)
    kernel = 3 if space.preprocess.operator == "relu_conv_bn_3x3" else 1
    return ReluConv(channels_in, channels_out, kernel, stride=stride, style=style)


class NetworkCell(nn.Module):
    """A cell of a network: ``[N, *, H, W]`` twice in, ``[N, nodes * channels, H/stride, W/stride]`` out.

    Args:
        inputs: the two modules that preprocess the cell's inputs to ``channels``.
        operators: the operators that each edge holds: all of them in a supernet, the chosen one in a derived net.
        styles: how the edges, and how the sums, are built.
    """

    def __init__(
        self,
        space: SearchSpace,
        kind: str,
        channels: int,
        *,
        inputs: tuple[nn.Module, nn.Module],
        operators: EdgeOperators,
        styles: Mapping[tuple[int, int, str], Style],
    ) -> None:
        super().__init__()
        self.space, self.kind, self.channels = space, kind, channels
        self.inputs = nn.ModuleList(inputs)
        self.edges = nn.ModuleDict()
        for (node, source), names in operators.items():
            held = {
                name: BUILDERS[name](channels, space.stride(kind, source), styles[node, source, name])
                for name in names
                if name != "none"
            }
            if held:
                self.edges[f"{node}_{source}"] = nn.ModuleDict(held)
        self.sums = nn.ModuleDict(
            {str(node): QuantizedSum(choices=(space.sum_quantization,)) for node in range(2, space.nodes + 2)}
        )

    def forward(self, before: Tensor, previous: Tensor, plan: Cell | Mixture, gates: Tensor | None = None) -> Tensor:
        """Compute the cell along ``plan``.

        Args:
            before: output of the cell before the previous one, value 0.
            previous: output of the previous cell, value 1.
            plan: the cell of a genotype, or a mixture of everything.
            gates: ``[nodes, inputs_per_node]`` factors of value 1 that carry gradients to architecture weights.
        """
        values = [self.inputs[0](before), self.inputs[1](previous)]
        for index in range(self.space.nodes):
            if isinstance(plan, Mixture):
                terms = self._mixed(index + 2, values, plan)
            else:
                terms = self._chosen(index + 2, values, plan[index], None if gates is None else gates[index])
            values.append(self.sums[str(index + 2)](terms) if terms else self._zeros(values[0]))
        return torch.cat(values[2:], dim=1)

    def _chosen(self, node: int, values: list[Tensor], edges: tuple[Edge, ...], gates: Tensor | None) -> list[Tensor]:
        """Return the terms of one node; an edge that stands twice is computed once and added twice."""
        computed: dict[Edge, Tensor] = {}
        terms = []
        for slot, edge in enumerate(edges):
            if edge.operator == "none":
                continue
            if edge not in computed:
                module = self.edges[f"{node}_{edge.source}"][edge.operator]  # type: ignore[index]
                computed[edge] = module(values[edge.source], edge.quantization)
            terms.append(computed[edge] if gates is None else computed[edge] * gates[slot])
        return terms

    def _mixed(self, node: int, values: list[Tensor], mixture: Mixture) -> list[Tensor]:
        terms = []
        for row, (target, source) in enumerate(all_edges(self.space.nodes)):
            if target != node or f"{node}_{source}" not in self.edges:
                continue
            blend = Blend(self.space.quantization, mixture.quantization[row])
            for name, module in self.edges[f"{node}_{source}"].items():  # type: ignore[operator]
                share = mixture.operators[row, self.space.operators.index(name)]
                terms.append(share * module(values[source], blend))
        return terms

    def _zeros(self, like: Tensor) -> Tensor:
        stride = self.space.stride(self.kind, 0)
        height, width = -(-like.shape[2] // stride), -(-like.shape[3] // stride)
        return like.new_zeros(like.shape[0], self.channels, height, width)
