"""The cost of a genotype's network by table arithmetic, and the least cost a space allows.

The conventions are those of a final network: batch norms in cells are affine, those of the preprocessing as the space
says, pooling has none. They give the published counts of W-FTT-Net (arXiv 2003.10375) to every digit it has.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from ftnas.cost.work import Cost, Size, Work, convolution, factorized_reduce, linear, operator_work, strided
from ftnas.errors import SpaceError
from ftnas.space import Edge, Genotype, Preprocess, SearchSpace, Sizes, Stem

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What an edge's cost depends on besides the edge: all cells of one place cost alike."""

    kind: str
    channels: int
    size: Size


def genotype_cost(
    genotype: Genotype,
    space: SearchSpace,
    sizes: Sizes,
    *,
    image_shape: Shape = (3, 32, 32),
    classes: int = 10,
) -> Cost:
    """Return the cost of the network that ``genotype`` describes, for one image.

    Edges of a node with the same operator and source are one module and count once, as in ``SearchSpace.canonical``.

    Raises:
        SpaceError: a cell has not the space's number of nodes, or an operator is unknown.
    """
    edges = {kind: _modules(genotype, kind, space) for kind in space.kinds}
    frame = _frame(sizes, space.stem, space.preprocess, space.nodes, image_shape, classes)
    total = frame.at(space.base_quantization.weight_bits)
    macs, parameters, bits = total.macs, total.parameters, total.weight_bits
    for place, cells in _places(sizes, image_shape).items():
        for edge in edges[place.kind]:
            work = _edge_work(edge.operator, edge.source, place)
            macs += cells * work.macs
            parameters += cells * work.parameters
            bits += cells * work.weights * edge.quantization.weight_bits
    return Cost(macs, parameters, bits)


def cheapest_flops(space: SearchSpace, sizes: Sizes, *, image_shape: Shape = (3, 32, 32), classes: int = 10) -> int:
    """Return the least FLOPs that any genotype of ``space`` can have, exactly."""
    return cheapest_costs(space, sizes, image_shape=image_shape, classes=classes)[0][0]


def cheapest_parameters(
    space: SearchSpace, sizes: Sizes, *, image_shape: Shape = (3, 32, 32), classes: int = 10
) -> int:
    """Return the fewest parameters that any genotype of ``space`` can have, exactly."""
    return cheapest_costs(space, sizes, image_shape=image_shape, classes=classes)[-1][1]


def cheapest_costs(
    space: SearchSpace, sizes: Sizes, *, image_shape: Shape = (3, 32, 32), classes: int = 10
) -> list[tuple[int, int]]:
    """Return the (FLOPs, parameters) that no genotype of ``space`` undercuts in both, FLOPs rising, exactly.

    A node holds at least one edge and may repeat it, and a repeated edge counts once: so one edge is its least. The
    nodes are chosen apart, so the cheapest sums are found node by node.
    """
    frame = _frame(sizes, space.stem, space.preprocess, space.nodes, image_shape, classes)
    places, least = _places(sizes, image_shape), [(2 * frame.macs, frame.parameters)]
    for kind, node in product(space.kinds, range(2, space.nodes + 2)):
        edges = _edge_costs(node, kind, space, places)
        least = _undercut_by_none({(f + flops, p + parameters) for f, p in least for flops, parameters in edges})
    return least


def _edge_costs(node: int, kind: str, space: SearchSpace, places: Counter[_Place]) -> set[tuple[int, int]]:
    """Return the (FLOPs, parameters) of each edge that a node can have, summed over all cells of its kind."""
    costs = set()
    for operator, source in product(space.operators, range(node)):
        works = [(n, _edge_work(operator, source, place)) for place, n in places.items() if place.kind == kind]
        costs.add((2 * sum(n * work.macs for n, work in works), sum(n * work.parameters for n, work in works)))
    return costs


def _undercut_by_none(costs: set[tuple[int, int]]) -> list[tuple[int, int]]:
    kept: list[tuple[int, int]] = []
    for flops, parameters in sorted(costs):
        if not kept or parameters < kept[-1][1]:
            kept.append((flops, parameters))
    return kept


def _modules(genotype: Genotype, kind: str, space: SearchSpace) -> list[Edge]:
    """Return one edge for each module of a cell; of those that share one, the first in order has its numbers."""
    cell = genotype.cell(kind)
    if len(cell) != space.nodes:
        raise SpaceError(f"space {space.name}: the {kind} cell needs {space.nodes} nodes, got {len(cell)}")
    return [edge for node in cell for edge in {(e.operator, e.source): e for e in sorted(node, reverse=True)}.values()]


@lru_cache(maxsize=4096)
def _edge_work(operator: str, source: int, place: _Place) -> Work:
    if place.kind == "normal":
        return operator_work(operator, place.channels, place.size, 1)
    if source < 2:
        return operator_work(operator, place.channels, place.size, 2)
    return operator_work(operator, place.channels, strided(place.size, 2), 1)


@lru_cache(maxsize=64)
def _places(sizes: Sizes, image_shape: Shape) -> Counter[_Place]:
    """Return how many cells there are of each kind, width and input size."""
    return Counter(_cells(sizes, image_shape))


def _cells(sizes: Sizes, image_shape: Shape) -> list[_Place]:
    size, cells = image_shape[1:], []
    for index in range(sizes.cells):
        cells.append(_Place(sizes.kind(index), sizes.width(index), size))
        size = strided(size, 2) if cells[-1].kind == "reduction" else size
    return cells


@lru_cache(maxsize=64)
def _frame(sizes: Sizes, stem: Stem, preprocess: Preprocess, nodes: int, image_shape: Shape, classes: int) -> Work:
    """Return the work of all that no genotype changes: stem, preprocessing and classifier."""
    widths = [stem.multiplier * sizes.channels] * 2
    work = convolution(image_shape[0], widths[0], 3, size=image_shape[1:], extra=2)
    halved = False  # whether the first input is twice the size of the second, as the cell between them reduced
    for place in _cells(sizes, image_shape):
        work += _preprocess(widths[-2], place, preprocess, halved=halved)
        work += _preprocess(widths[-1], place, preprocess, halved=False)
        widths.append(nodes * place.channels)
        halved = place.kind == "reduction"
    return work + linear(widths[-1], classes)


def _preprocess(channels_in: int, place: _Place, preprocess: Preprocess, *, halved: bool) -> Work:
    """Return the work that brings an input to a cell's channels, and to ``place.size`` where it is ``halved``."""
    if preprocess.operator == "relu_conv_bn_1x1" and halved:
        return factorized_reduce(channels_in, place.channels, size=place.size, affine=preprocess.affine)
    kernel = 3 if preprocess.operator == "relu_conv_bn_3x3" else 1
    return convolution(channels_in, place.channels, kernel, size=place.size, extra=2 * preprocess.affine)
