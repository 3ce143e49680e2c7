"""What a search may choose: operators, numbers and connections of two cells, and how cells make a network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator

from ftnas.configuration import Section
from ftnas.errors import SpaceError
from ftnas.quantization import Quantization, Rectifier
from ftnas.space.genotype import KINDS, MOST_NODES, Cell, Edge, Genotype, Node
from ftnas.space.primitives import has_numbers
from ftnas.space.sections import Activation, Operator, Preprocess, QuantizationChoice, Sizes, Stem

LISTABLE = 1_000_000


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice among ``options`` numbered from 0, such as ``normal.2.0.source`` (kind, node id, slot, what)."""

    name: str
    options: int


class SearchSpace(Section):
    """Every network that a search can find.

    Attributes:
        quantization: what the numbers of an edge may be.
        base_quantization: the numbers of stem and preprocessing, which no edge owns.
        nodes: nodes of a cell; node ids are 2, 3, ... as 0 and 1 are the cell's two inputs.
        activation: before each convolution: ``relu``, ``relu6``, ``clipped(LIMIT)`` or ``fatrelu(THRESHOLD)``.
        order: ``act-conv-bn`` (DARTS) or ``conv-act-bn``, where a bounded activation cuts a large fault off before
            batch norm (arXiv 2205.14420).
        affine: whether batch norms of final networks have parameters of their own (the supernet's have none).
        search: the size of the supernet.
        final: the size of the networks trained at the end.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    description: str = ""
    operators: tuple[Operator, ...]
    quantization: tuple[QuantizationChoice, ...]
    base_quantization: QuantizationChoice = Quantization()
    nodes: int = Field(default=4, ge=1, le=MOST_NODES)
    inputs_per_node: int = Field(default=2, ge=1, le=4)
    stem: Stem = Stem()
    preprocess: Preprocess = Preprocess()
    activation: Activation = Rectifier()
    order: Literal["act-conv-bn", "conv-act-bn"] = "act-conv-bn"
    affine: bool = True
    search: Sizes
    final: Sizes

    @field_validator("operators", "quantization")
    @classmethod
    def _some_each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values:  # not min_length, which counts a wrong item as a missing one and reports it twice
            raise ValueError("at least one is needed")
        for position, value in enumerate(values):
            if value in values[:position]:
                raise ValueError(f"{value} is listed twice")
        return values

    @model_validator(mode="after")
    def _same_kinds(self) -> Self:
        if bool(self.search.reductions) != bool(self.final.reductions):
            raise ValueError("search and final must both have reductions or both have none")
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of cell there are: ``normal``, and ``reduction`` where the layout has some."""
        return KINDS if self.search.reductions else KINDS[:1]

    @property
    def size(self) -> int:
        """How many encodings there are; isomorphic ones count apart."""
        return math.prod(decision.options for decision in self.decisions())

    @property
    def sum_quantization(self) -> Quantization:
        """The numbers of sums, pooled features and classifier: the base's bits, ranges that follow the values.

        No batch norm holds these values at one scale, so a fixed or learned range is soon left behind by them.
        """
        base = self.base_quantization
        return Quantization(weight_bits=base.weight_bits, feature_bits=base.feature_bits)

    def stride(self, kind: str, source: int) -> int:
        """Return the stride of an edge: 2 from the inputs of a reduction cell, else 1."""
        return 2 if kind == "reduction" and source < 2 else 1

    def decisions(self) -> tuple[Decision, ...]:
        """Return all choices that make a genotype, in a fixed order."""
        return tuple(
            Decision(f"{place}.{what}", options)
            for kind, node, slot, place in self._places()
            for what, options in (
                ("source", node),
                ("operator", len(self.operators)),
                ("quantization", len(self.quantization)),
            )
        )

    def genotype(self, choices: Mapping[str, int]) -> Genotype:
        """Return the genotype that ``choices``, a number for each decision's name, stands for.

        Raises:
            SpaceError: a decision is missing, unknown or not one of its options.
        """
        decisions = {decision.name: decision for decision in self.decisions()}
        for name in choices:
            if name not in decisions:
                raise SpaceError(
                    f"space {self.name}: unknown decision {name!r}; names are like {next(iter(decisions))}"
                )
        chosen = {name: _option(choices, decision) for name, decision in decisions.items()}
        return Genotype(*(self._cell(kind, chosen) for kind in self.kinds))

    def choices(self, genotype: Genotype) -> dict[str, int]:
        """Return the number for each decision's name, the inverse of ``genotype``.

        Raises:
            SpaceError: the genotype is not of this space.
        """
        self.check(genotype)
        numbers: dict[str, int] = {}
        for kind, node, slot, place in self._places():
            edge = genotype.cell(kind)[node - 2][slot]
            numbers[f"{place}.source"] = edge.source
            numbers[f"{place}.operator"] = self.operators.index(edge.operator)
            numbers[f"{place}.quantization"] = self.quantization.index(edge.quantization)
        return numbers

    def check(self, genotype: Genotype) -> None:
        """Raise a ``SpaceError`` that names the first place where ``genotype`` leaves the space."""
        for kind in KINDS:
            cell, nodes = genotype.cell(kind), self.nodes if kind in self.kinds else 0
            if len(cell) != nodes:
                raise SpaceError(f"space {self.name}: the {kind} cell needs {nodes} nodes, got {len(cell)}")
            for node, edges in enumerate(cell, start=2):
                self._check_node(f"space {self.name}: {kind}.{node}", node, edges)

    def canonical(self, genotype: Genotype) -> Genotype:
        """Return the one form that stands for all that compute alike.

        An edge without numbers of its own gets the first quantisation choice. Two edges of a node with the same
        operator and source are one module, so they have the same numbers: the first in order. See
        ``Genotype.canonical`` for the rest.
        """
        return Genotype(*(self._settled(kind, genotype.cell(kind)) for kind in KINDS)).canonical()

    def sample(self, rng: torch.Generator) -> Genotype:
        """Draw a genotype, every encoding equally likely."""
        return self.genotype({d.name: int(torch.randint(d.options, (1,), generator=rng)) for d in self.decisions()})

    def enumerate(self) -> Iterator[Genotype]:
        """Return every architecture once, in canonical form and in a fixed order.

        Raises:
            SpaceError: the space is too large to be listed.
        """
        if self.size > LISTABLE:
            raise SpaceError(f"space {self.name}: {self.size:.2g} encodings; at most {LISTABLE:,} can be listed")
        return (Genotype(*cells) for cells in itertools.product(*(self._cells(kind) for kind in self.kinds)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for YAML; it reads back equal."""
        return self.model_dump(mode="json")

    def _places(self) -> Iterator[tuple[str, int, int, str]]:
        for kind in self.kinds:
            for node in range(2, self.nodes + 2):
                for slot in range(self.inputs_per_node):
                    yield kind, node, slot, f"{kind}.{node}.{slot}"

    def _cell(self, kind: str, chosen: Mapping[str, int]) -> Cell:
        edges = {(node, slot): self._edge(place, chosen) for k, node, slot, place in self._places() if k == kind}
        slots = range(self.inputs_per_node)
        return tuple(tuple(edges[node, slot] for slot in slots) for node in range(2, self.nodes + 2))

    def _edge(self, place: str, chosen: Mapping[str, int]) -> Edge:
        return Edge(
            self.operators[chosen[f"{place}.operator"]],
            chosen[f"{place}.source"],
            self.quantization[chosen[f"{place}.quantization"]],
        )

    def _check_node(self, place: str, node: int, edges: Node) -> None:
        if len(edges) != self.inputs_per_node:
            raise SpaceError(f"{place}: {self.inputs_per_node} edges are needed, got {len(edges)}")
        for slot, edge in enumerate(edges):
            if edge.operator not in self.operators:
                raise SpaceError(
                    f"{place}.{slot}: operator {edge.operator!r} is not in the space; "
                    f"choose from {', '.join(self.operators)}"
                )
            if edge.source not in range(node):
                raise SpaceError(f"{place}.{slot}: source must be 0..{node - 1}, got {edge.source}")
            if edge.quantization not in self.quantization:
                raise SpaceError(
                    f"{place}.{slot}: quantisation {edge.quantization} is not in the space; "
                    f"choose from {', '.join(str(choice) for choice in self.quantization)}"
                )

    def _settled(self, kind: str, cell: Cell) -> Cell:
        return tuple(_shared_numbers(tuple(self._settled_edge(kind, edge) for edge in node)) for node in cell)

    def _settled_edge(self, kind: str, edge: Edge) -> Edge:
        if has_numbers(edge.operator, self.stride(kind, edge.source)):
            return edge
        return replace(edge, quantization=self.quantization[0])

    def _cells(self, kind: str) -> list[Cell]:
        """Return the distinct canonical cells of ``kind``, sorted."""
        raw = itertools.product(*(self._nodes(node) for node in range(2, self.nodes + 2)))
        return sorted({Genotype(self._settled(kind, cell)).canonical().normal for cell in raw})

    def _nodes(self, node: int) -> list[Node]:
        edges = itertools.starmap(Edge, itertools.product(self.operators, range(node), self.quantization))
        return list(itertools.combinations_with_replacement(edges, self.inputs_per_node))


def _shared_numbers(node: Node) -> Node:
    first: dict[tuple[str, int], Quantization] = {}
    for edge in sorted(node):
        first.setdefault((edge.operator, edge.source), edge.quantization)
    return tuple(replace(edge, quantization=first[edge.operator, edge.source]) for edge in node)


def _option(choices: Mapping[str, int], decision: Decision) -> int:
    if decision.name not in choices:
        raise SpaceError(f"decision {decision.name} is missing; it takes 0..{decision.options - 1}")
    value = choices[decision.name]
    if value not in range(decision.options):
        raise SpaceError(f"decision {decision.name} takes 0..{decision.options - 1}, got {value}")
    return int(value)
