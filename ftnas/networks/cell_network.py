"""A network of cells. The supernet holds every operator on every edge; a derived net is the same class holding
only what its genotype uses, so that modules, weights and fault sites have the same names in both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from ftnas.networks.cells import Mixture, NetworkCell, all_edges, preprocess
from ftnas.networks.operators import Style
from ftnas.quantization import QuantizedConv2d, QuantizedLinear, QuantizedSum
from ftnas.space import Genotype, SearchSpace, Sizes


class CellNetwork(nn.Module):
    """Stem, cells, global average pool, classifier: ``[N, C, H, W] -> [N, classes]``.

    Args:
        genotype: what a derived net computes; ``None`` builds the supernet.
        norms: ``search`` (no affine parameters, batch norm after pooling) or ``final``; by default the supernet's
            are ``search`` and a derived net's ``final``.
    """

    def __init__(
        self,
        space: SearchSpace,
        sizes: Sizes,
        *,
        image_shape: tuple[int, int, int],
        classes: int,
        genotype: Genotype | None = None,
        norms: Literal["search", "final"] | None = None,
    ) -> None:
        super().__init__()
        self.space, self.sizes = space, sizes
        self.genotype = None if genotype is None else space.canonical(genotype)
        search = (norms or ("search" if genotype is None else "final")) == "search"
        self._style = Style(
            norm="affine" if space.affine and not search else "plain",
            pool_norm=search,
            rectifier=space.activation,
            order=space.order,
            choices=(space.base_quantization,),
        )
        self._input_style = self._style if space.preprocess.affine else replace(self._style, norm="plain")
        width = space.stem.multiplier * sizes.channels
        self.stem = QuantizedConv2d(image_shape[0], width, 3, norm=self._style.norm, choices=self._style.choices)
        self.cells = nn.ModuleList()
        width = self._add_cells(width)
        self.pooled = QuantizedSum(choices=(space.sum_quantization,))
        self.classifier = QuantizedLinear(width, classes, choices=(space.sum_quantization,))

    def _add_cells(self, width: int) -> int:
        """Add every cell and return the channels of the last one's output."""
        before, previous, halved = width, width, False
        for index in range(self.sizes.cells):
            kind, channels = self.sizes.kind(index), self.sizes.width(index)
            inputs = (
                preprocess(self.space, before, channels, stride=2 if halved else 1, style=self._input_style),
                preprocess(self.space, previous, channels, stride=1, style=self._input_style),
            )
            operators, styles = self._edges(kind)
            self.cells.append(
                NetworkCell(self.space, kind, channels, inputs=inputs, operators=operators, styles=styles)
            )
            before, previous, halved = previous, self.space.nodes * channels, kind == "reduction"
        return previous

    def _edges(self, kind: str) -> tuple[dict[tuple[int, int], list[str]], Mapping[tuple[int, int, str], Style]]:
        operators: dict[tuple[int, int], list[str]] = {}
        styles: dict[tuple[int, int, str], Style] = {}
        if self.genotype is None:
            for edge in all_edges(self.space.nodes):
                operators[edge] = list(self.space.operators)
                for name in self.space.operators:
                    styles[*edge, name] = replace(self._style, choices=self.space.quantization)
            return operators, styles
        for index, node in enumerate(self.genotype.cell(kind)):
            for edge_of_node in node:
                place = (index + 2, edge_of_node.source)
                if edge_of_node.operator not in operators.setdefault(place, []):
                    operators[place].append(edge_of_node.operator)
                styles[*place, edge_of_node.operator] = replace(self._style, choices=(edge_of_node.quantization,))
        return operators, styles

    def forward(
        self,
        x: Tensor,
        plan: Genotype | Mapping[str, Mixture] | None = None,
        gates: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return logits.

        Args:
            x: images ``[N, C, H, W]``.
            plan: a genotype (one path), or a mixture for each kind of cell; a derived net has its own.
            gates: for each kind of cell, factors of value one that carry gradients (see ``NetworkCell.forward``).
        """
        chosen = plan or self.genotype
        if chosen is None:
            raise ValueError("a supernet needs a genotype or a mixture to compute")
        before = previous = self.stem(x)
        for cell in self.cells:
            kind: str = cell.kind  # type: ignore[assignment]
            cell_plan = chosen.cell(kind) if isinstance(chosen, Genotype) else chosen[kind]
            before, previous = previous, cell(before, previous, cell_plan, gates[kind] if gates else None)
        logits: Tensor = self.classifier(self.pooled([previous.mean(dim=(2, 3))]))
        return logits

    def inherit(self, supernet: CellNetwork) -> None:
        """Take the weights and statistics of ``supernet`` for every module that this net has.

        Raises:
            RuntimeError: a tensor of this net is not in the supernet, or has another shape.
        """
        theirs = supernet.state_dict()
        with torch.no_grad():
            self.load_state_dict({name: theirs[name] for name in self.state_dict() if name in theirs})
