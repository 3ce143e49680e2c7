"""Architectures that the supernet itself proposes: by the size of architecture weights, and by perturbation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ftnas.runtime import keyed_generator
from ftnas.search.architecture import ArchitectureWeights
from ftnas.space import Edge, Genotype, SearchSpace


def by_magnitude(architecture: ArchitectureWeights) -> Genotype:
    """Return the genotype of the largest weights, as DARTS derives it (arXiv 1806.09055, section 2.4).

    An edge is as strong as its strongest operator other than ``none``; each node keeps its strongest edges.
    """
    space = architecture.space
    cells = {
        kind: _strongest(
            space,
            architecture.operators[kind].detach().softmax(1),
            architecture.quantization[kind].detach(),
        )
        for kind in space.kinds
    }
    return space.canonical(Genotype(cells["normal"], cells.get("reduction", ())))


def by_perturbation(
    space: SearchSpace,
    faulty_accuracy: Callable[[Genotype], float],
    *,
    completions: int,
    key: str,
) -> Genotype:
    """Return the genotype whose every choice was seen to help under faults.

    The size of an architecture weight says little about an operator's worth; what the net loses without it says more
    (Wang et al., arXiv 2108.04392). The single-path form: each option of an edge is scored by the mean faulty
    accuracy over the same random cells around it, and the edges of a node are ranked by their best operator.
    """
    base = [space.sample(keyed_generator(key, "completion", index)) for index in range(completions)]
    cells = {}
    for kind in space.kinds:
        operators = _effects(space, kind, base, faulty_accuracy, options=len(space.operators), field="operator")
        numbers = _effects(space, kind, base, faulty_accuracy, options=len(space.quantization), field="quantization")
        cells[kind] = _strongest(space, operators, numbers)
    return space.canonical(Genotype(cells["normal"], cells.get("reduction", ())))


def _effects(
    space: SearchSpace,
    kind: str,
    base: list[Genotype],
    faulty_accuracy: Callable[[Genotype], float],
    *,
    options: int,
    field: str,
) -> Tensor:
    """Return ``[edges, options]``: the mean score of the ``base`` cells with each option put in its place."""
    rows = []
    for node in range(2, space.nodes + 2):
        for source in range(node):
            row = []
            for option in range(options):
                changed = [_with(space, genotype, f"{kind}.{node}.0", source, field, option) for genotype in base]
                row.append(sum(faulty_accuracy(genotype) for genotype in changed) / len(changed))
            rows.append(row)
    return torch.tensor(rows)


def _with(space: SearchSpace, genotype: Genotype, slot: str, source: int, field: str, option: int) -> Genotype:
    """Return ``genotype`` whose ``slot`` reads ``source`` with ``option`` as its ``field``."""
    choices = {**space.choices(genotype), f"{slot}.source": source, f"{slot}.{field}": option}
    return space.canonical(space.genotype(choices))


def _strongest(space: SearchSpace, operators: Tensor, quantization: Tensor) -> tuple[tuple[Edge, ...], ...]:
    """Return the cell of the best options, from scores ``[edges, operators]`` and ``[edges, choices]``."""
    allowed = operators.clone()
    if "none" in space.operators and len(space.operators) > 1:
        allowed[:, space.operators.index("none")] = -torch.inf
    strength, best = allowed.max(1)
    nodes, first = [], 0
    for node in range(2, space.nodes + 2):
        ranked = sorted(range(node), key=lambda source: -float(strength[first + source]))
        edges = []
        for slot in range(space.inputs_per_node):
            row = first + ranked[slot % node]
            numbers = space.quantization[int(quantization[row].argmax())]
            edges.append(Edge(space.operators[int(best[row])], row - first, numbers))
        nodes.append(tuple(edges))
        first += node
    return tuple(nodes)
