"""Genotypes and the spaces they come from. Knows nothing of tensors' values, networks or training."""

from ftnas.space.genotype import KINDS, Cell, Edge, Genotype, Node
from ftnas.space.library import bundled_spaces, load_space
from ftnas.space.primitives import OPERATORS, has_numbers
from ftnas.space.published import hand_made, w_ftt_net
from ftnas.space.search_space import Decision, SearchSpace
from ftnas.space.sections import Preprocess, QuantizationChoice, Sizes, Stem

__all__ = [
    "KINDS",
    "OPERATORS",
    "Cell",
    "Decision",
    "Edge",
    "Genotype",
    "Node",
    "Preprocess",
    "QuantizationChoice",
    "SearchSpace",
    "Sizes",
    "Stem",
    "bundled_spaces",
    "hand_made",
    "has_numbers",
    "load_space",
    "w_ftt_net",
]
