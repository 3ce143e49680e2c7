"""Genotypes for hypothesis: of a given space, or of none."""

from __future__ import annotations

from hypothesis import strategies as st

from ftnas.quantization import Quantization, Range
from ftnas.space import OPERATORS, Cell, Edge, Genotype, SearchSpace

ranges = st.one_of(
    st.sampled_from(["power_of_two", "max", "learned"]).map(Range.parse),
    st.integers(1, 999).map(lambda thousandths: Range("fixed", thousandths / 1000)),
    st.integers(1, 64).map(lambda limit: Range("fixed", float(limit))),
)
bits = st.integers(2, 16)
quantizations = st.builds(Quantization, bits, ranges, bits, ranges)


def genotypes_of(space: SearchSpace) -> st.SearchStrategy[Genotype]:
    numbers = {decision.name: st.integers(0, decision.options - 1) for decision in space.decisions()}
    return st.fixed_dictionaries(numbers).map(space.genotype)


@st.composite
def cells(draw: st.DrawFn, *, least_nodes: int = 1) -> Cell:
    def edge(node: int) -> st.SearchStrategy[Edge]:
        return st.builds(Edge, st.sampled_from(OPERATORS), st.integers(0, node - 1), quantizations)

    count = draw(st.integers(least_nodes, 4))
    return tuple(tuple(draw(st.lists(edge(node), min_size=1, max_size=3))) for node in range(2, count + 2))


any_genotype = st.builds(Genotype, cells(), st.one_of(st.just(()), cells()))
