"""Architectures that the supernet itself proposes: by the size of architecture weights, and by perturbation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ftnas.networks import all_edges
from ftnas.runtime import keyed_generator
from ftnas.search.architecture import ArchitectureWeights
from ftnas.search.ledger import settled
from ftnas.space import Edge, Genotype, SearchSpace
from ftnas.space.genotype import Cell


def by_magnitude(architecture: ArchitectureWeights) -> Genotype:
    """Return the genotype of the largest weights, as DARTS derives it (arXiv 1806.09055, section 2.4).

    An edge is as strong as its strongest operator other than ``none``; each node keeps its strongest edges. Nodes
    keep their places: an isomorphic form would read other weights of the supernet.
    """
    space = architecture.space
    cells = {}
    for kind in space.kinds:
        operators = _without_none(space, architecture.operators[kind].detach().softmax(1))
        numbers = architecture.quantization[kind].detach()
        cells[kind] = _strongest(space, operators, numbers, strength=operators.amax(1))
    return settled(space, Genotype(cells["normal"], cells.get("reduction", ())))


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
    accuracy over the same random cells around it: operators first, then quantisation choices with the best operator.
    The edges of a node are ranked by their best.
    """
    base = [space.choices(space.sample(keyed_generator(key, "completion", index))) for index in range(completions)]

    def worth(changes: Mapping[str, int]) -> float:
        changed = [settled(space, space.genotype({**choices, **changes})) for choices in base]
        return sum(faulty_accuracy(genotype) for genotype in changed) / len(changed)

    cells = {}
    for kind in space.kinds:
        rows = [_edge_worth(space, f"{kind}.{node}.0", source, worth) for node, source in all_edges(space.nodes)]
        operators, numbers = (torch.stack(part) for part in zip(*rows, strict=True))
        cells[kind] = _strongest(space, operators, numbers, strength=numbers.amax(1))
    return settled(space, Genotype(cells["normal"], cells.get("reduction", ())))


def _edge_worth(
    space: SearchSpace, slot: str, source: int, worth: Callable[[Mapping[str, int]], float]
) -> tuple[Tensor, Tensor]:
    """Return what each operator ``[operators]`` of the edge to ``slot`` is worth, and with the best, each choice."""
    place = {f"{slot}.source": source}
    scores = [worth({**place, f"{slot}.operator": option}) for option in range(len(space.operators))]
    operators = _without_none(space, torch.tensor(scores))
    place[f"{slot}.operator"] = int(operators.argmax())
    numbers = [worth({**place, f"{slot}.quantization": option}) for option in range(len(space.quantization))]
    return operators, torch.tensor(numbers)


def _without_none(space: SearchSpace, operators: Tensor) -> Tensor:
    """Return scores ``[..., operators]`` in which ``none`` never wins, unless the space has nothing else."""
    allowed = operators.clone()
    if "none" in space.operators and len(space.operators) > 1:
        allowed[..., space.operators.index("none")] = -torch.inf
    return allowed


def _strongest(space: SearchSpace, operators: Tensor, quantization: Tensor, *, strength: Tensor) -> Cell:
    """Return the cell of the strongest edges with their best options.

    Args:
        operators: ``[edges, operators]``, a score for each option.
        quantization: ``[edges, choices]``, likewise.
        strength: ``[edges]``, by which the edges of a node are ranked.
    """
    best = operators.argmax(1)
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
