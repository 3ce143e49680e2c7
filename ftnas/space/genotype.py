"""One candidate as plain data: what each edge of each cell computes, from where, and in which numbers."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass, replace
from typing import Any

from ftnas.errors import SpaceError
from ftnas.quantization import Quantization

SCHEMA = 1
KINDS = ("normal", "reduction")
MOST_NODES = 6  # of a cell, all of whose orders are compared
_PLAIN = Quantization()


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """``operator`` applied to the value ``source``: 0 and 1 are the outputs of the last two cells, 2.. the nodes."""

    operator: str
    source: int
    quantization: Quantization = _PLAIN


Node = tuple[Edge, ...]
Cell = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Genotype:
    """The two cells of a network. A cell is a tuple of nodes, a node the tuple of the edges it sums.

    Node ``i`` has id ``i + 2`` and may read any smaller id. The cell's output is the concatenation of all nodes.
    ``reduction`` is empty in a space without reduction cells.
    """

    normal: Cell
    reduction: Cell = ()

    def cell(self, kind: str) -> Cell:
        """Return the cell of ``kind``, one of ``KINDS``."""
        return self.normal if kind == "normal" else self.reduction

    def with_numbers(self, numbers: Quantization) -> Genotype:
        """Return the same cells with ``numbers`` on every edge."""
        cells = (
            tuple(tuple(replace(edge, quantization=numbers) for edge in node) for node in self.cell(kind))
            for kind in KINDS
        )
        return Genotype(*cells)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON; ``from_dict`` reads it back."""
        return {"schema": SCHEMA, **{kind: [_node_data(n) for n in self.cell(kind)] for kind in KINDS}}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Genotype:
        """Read plain data.

        Raises:
            SpaceError: the data is of another schema, incomplete or of the wrong types.
        """
        if not isinstance(content, dict):
            raise SpaceError(f"genotype: a mapping is needed, got {type(content).__name__}")
        if content.get("schema") != SCHEMA:
            raise SpaceError(f"genotype: schema must be {SCHEMA}, got {content.get('schema')!r}")
        try:
            return cls(*(_cell(content[kind]) for kind in KINDS))
        except KeyError as error:
            raise SpaceError(f"genotype: key {error} is missing") from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise SpaceError(f"genotype: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Read what ``to_json`` wrote, or any JSON of the same content.

        Raises:
            SpaceError: the text is not JSON or not a genotype.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpaceError(f"genotype: is not JSON ({error})") from None
        return cls.from_dict(content)

    def to_json(self) -> str:
        """Return canonical JSON text: equal genotypes give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @property
    def key(self) -> str:
        """A short name, the same for every isomorphic form (12 hexadecimal digits)."""
        return hashlib.blake2b(self.canonical().to_json().encode(), digest_size=6).hexdigest()

    @property
    def form(self) -> str:
        """A short name of this very form: isomorphic ones share ``key`` but read other weights of a supernet."""
        return f"{self.key}-{hashlib.blake2b(self.to_json().encode(), digest_size=4).hexdigest()}"

    def canonical(self) -> Genotype:
        """Return the one form that stands for all isomorphic ones.

        Edges of a node are summed, so their order means nothing; nodes are concatenated, so their order means
        nothing either as long as each reads smaller ids; ``none`` is the same from every source. The
        quantisation of an operator without numbers of its own is set by the search space, which knows operators.
        """
        return Genotype(_canonical_cell(self.normal), _canonical_cell(self.reduction))


def _canonical_cell(cell: Cell) -> Cell:
    forms = (_reordered(cell, order) for order in itertools.permutations(range(len(cell))))
    return min(form for form in forms if form is not None) if cell else cell


def _reordered(cell: Cell, order: tuple[int, ...]) -> Cell | None:
    """Return ``cell`` with old node ``order[i]`` as its node ``i``; ``None`` if a node would read a later one."""
    new_id = {0: 0, 1: 1, **{old + 2: new + 2 for new, old in enumerate(order)}}
    nodes = []
    for new, old in enumerate(order):
        edges = [_moved(edge, new_id) for edge in cell[old]]
        if any(edge.source >= new + 2 for edge in edges):
            return None
        nodes.append(tuple(sorted(edges)))
    return tuple(nodes)


def _moved(edge: Edge, new_id: dict[int, int]) -> Edge:
    source = 0 if edge.operator == "none" else new_id[edge.source]
    return Edge(edge.operator, source, edge.quantization)


def _node_data(node: Node) -> list[dict[str, Any]]:
    return [{"operator": e.operator, "source": e.source, "quantization": e.quantization.to_dict()} for e in node]


def _cell(nodes: list[list[dict[str, Any]]]) -> Cell:
    if len(nodes) > MOST_NODES:
        raise ValueError(f"a cell has up to {MOST_NODES} nodes, got {len(nodes)}")
    return tuple(_node(edges, index) for index, edges in enumerate(nodes, start=2))


def _node(edges: list[dict[str, Any]], index: int) -> Node:
    node = tuple(_edge(edge) for edge in edges)
    for edge in node:
        if edge.source >= index:
            raise ValueError(f"source of node {index} must be 0..{index - 1}, got {edge.source}")
    return node


def _edge(content: dict[str, Any]) -> Edge:
    operator, source = content["operator"], content["source"]
    if not isinstance(operator, str):
        raise ValueError(f"operator must be a name, got {operator!r}")
    if not isinstance(source, int) or isinstance(source, bool) or source < 0:
        raise ValueError(f"source must be a whole number from 0, got {source!r}")
    return Edge(operator, source, Quantization.from_dict(content["quantization"]))
