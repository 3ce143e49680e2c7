"""Supernets of three spaces and the nets derived from them, for tests of what a path computes."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from ftnas.networks import CellNetwork
from ftnas.quantization import Quantization, Range
from ftnas.runtime import seeded
from ftnas.space import OPERATORS, Edge, Genotype, SearchSpace, Sizes, load_space
from ftnas.training import recalibrate

SHAPE, CLASSES = (1, 8, 8), 10
SMALL = Sizes(channels=4, cells=2, reductions=(0,))
FLAT = Sizes(channels=4, cells=2)
LEARNED = Quantization(weight_range=Range("learned"), feature_range=Range("learned"))
# Every operator, every kind of range; other than the bundled spaces, it stays as it is.
FULL = SearchSpace(
    name="full",
    operators=OPERATORS,
    quantization=(Quantization(), Quantization(4), Quantization(feature_range=Range("fixed", 2.0)), LEARNED),
    nodes=2,
    search=SMALL,
    final=SMALL,
)
SPACES = {"tiny": load_space("tiny"), "digits": load_space("digits"), "full": FULL}
FAULTS = ["features.mac_bit_bias:1e-2", "features.bit_flip:1e-2", "weights.stuck_cell:0.1:scope=all"]


def network(name: str, genotype: Genotype | None = None, **norms: Any) -> CellNetwork:
    space = SPACES[name]
    sizes = SMALL if space.search.reductions else FLAT
    return CellNetwork(space, sizes, image_shape=SHAPE, classes=CLASSES, genotype=genotype, **norms)


def some_genotype(name: str) -> Genotype:
    return SPACES[name].sample(torch.Generator().manual_seed(0))


@cache
def fresh_supernet(name: str) -> CellNetwork:
    with seeded("supernet"):
        return network(name)


def images(count: int = 6) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def supernet_and_derived(name: str, genotype: Genotype) -> tuple[CellNetwork, CellNetwork]:
    """Return a supernet whose statistics on the path of ``genotype`` are its own, and the heir of its weights."""
    supernet = copy.deepcopy(fresh_supernet(name))
    derived = network(name, genotype, norms="search")
    assert derived.genotype is not None
    recalibrate(supernet, images(), forward=lambda x: supernet(x, derived.genotype))
    derived.inherit(supernet)
    return supernet.eval(), derived.eval()


def full_cells(*nodes: tuple[tuple[str, int], ...]) -> Genotype:
    """Return a genotype of the full space with the same two nodes in both cells."""
    cell = tuple(tuple(Edge(operator, source) for operator, source in node) for node in nodes)
    return Genotype(cell, cell)


TWICE = full_cells((("sep_conv_3x3", 0), ("sep_conv_3x3", 0)), (("skip_connect", 1), ("skip_connect", 1)))
EMPTY_NODE = full_cells((("none", 0), ("none", 1)), (("sep_conv_3x3", 2), ("max_pool_3x3", 1)))
NOTHING = full_cells(*[(("none", 0), ("none", 1))] * 2)
SPECIAL = {"an edge twice": TWICE, "a node of none": EMPTY_NODE, "none everywhere": NOTHING}

special = pytest.mark.parametrize("genotype", SPECIAL.values(), ids=SPECIAL)
mixed = pytest.mark.parametrize("name", ["tiny", "full"])
anywhere = pytest.mark.parametrize("name", SPACES)
