"""Cells that no search here has found: the published W-FTT-Net and one drawn by hand."""

from __future__ import annotations

from typing import Literal

from ftnas.errors import SpaceError
from ftnas.quantization import Quantization
from ftnas.space.genotype import Cell, Edge, Genotype
from ftnas.space.search_space import SearchSpace

Style = Literal["separable", "dense"]
STYLES: dict[str, str] = {"separable": "sep_conv_3x3", "dense": "relu_conv_bn_3x3"}

_Pairs = tuple[tuple[tuple[str, int], ...], ...]

# arXiv 2003.10375, as released: per node (operator, source).
_W_FTT_NORMAL: _Pairs = (
    (("relu_conv_bn_3x3", 0), ("relu_conv_bn_5x5", 0)),
    (("conv_1x1", 1), ("dil_conv_3x3", 1)),
    (("sep_conv_3x3", 1), ("sep_conv_3x3", 0)),
    (("max_pool_3x3", 2), ("relu_conv_bn_5x5", 1)),
)
_W_FTT_REDUCTION: _Pairs = (
    (("skip_connect", 0), ("relu_conv_bn_5x5", 1)),
    (("dil_conv_3x3", 2), ("sep_conv_3x3", 0)),
    (("max_pool_3x3", 1), ("conv_1x1", 3)),
    (("dil_conv_3x3", 4), ("skip_connect", 2)),
)


def w_ftt_net() -> Genotype:
    """Return the published W-FTT-Net: 8 bits, power-of-two ranges; 20 or 40 channels make W-FTT-Net-20 or -40."""
    return Genotype(_published(_W_FTT_NORMAL), _published(_W_FTT_REDUCTION))


def hand_made(space: SearchSpace, style: Style = "separable") -> Genotype:
    """Return the cell a person would draw: every node sums 3x3 convolutions of the two cell inputs.

    Eight bits with power-of-two ranges where the space has them, else its first quantisation choice.

    Raises:
        SpaceError: the style is unknown, or the space lacks its operator.
    """
    if style not in STYLES:
        raise SpaceError(f"unknown style {style!r}; choose from {', '.join(STYLES)}")
    operator, plain = STYLES[style], Quantization()
    if operator not in space.operators:
        raise SpaceError(
            f"space {space.name}: a {style} hand-made cell needs {operator}; "
            f"its operators are {', '.join(space.operators)}"
        )
    numbers = plain if plain in space.quantization else space.quantization[0]
    return Genotype(*[_alike(operator, numbers, space)] * len(space.kinds))


def _published(pairs: _Pairs) -> Cell:
    return tuple(tuple(Edge(operator, source) for operator, source in node) for node in pairs)


def _alike(operator: str, numbers: Quantization, space: SearchSpace) -> Cell:
    """Return a cell of equal nodes; with one edge a node, the nodes take the two inputs in turn."""
    inputs = space.inputs_per_node
    edges = [Edge(operator, number % 2, numbers) for number in range(space.nodes * inputs)]
    return tuple(tuple(edges[start : start + inputs]) for start in range(0, len(edges), inputs))
