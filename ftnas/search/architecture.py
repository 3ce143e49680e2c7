"""Architecture weights, and how a training step turns them into something that can be computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftnas.networks import Mixture, all_edges
from ftnas.runtime import keyed_generator, moved
from ftnas.space import Edge, Genotype, SearchSpace

Relaxation = Literal["softmax", "gumbel", "uniform"]


@dataclass(frozen=True)
class Sample:
    """What one step computes: a mixture, or a path with the gates that carry gradients to architecture weights."""

    plan: Genotype | Mapping[str, Mixture]
    gates: Mapping[str, Tensor] | None = None

    @property
    def constant_plan(self) -> Genotype | Mapping[str, Mixture]:
        """The plan without a way back to the architecture weights: for steps that move others."""
        if isinstance(self.plan, Genotype):
            return self.plan
        return {kind: Mixture(m.operators.detach(), m.quantization.detach()) for kind, m in self.plan.items()}


class ArchitectureWeights(nn.Module):
    """For each kind of cell, ``operators`` ``[edges, operators]`` and ``quantization`` ``[edges, choices]`` logits.

    Edges are (node, source) pairs in the order of ``networks.all_edges``.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        self.edges = all_edges(space.nodes)
        self._read: dict[Tensor, tuple[int, Tensor]] = {}
        rows = len(self.edges)
        self.operators = nn.ParameterDict(
            {kind: nn.Parameter(torch.zeros(rows, len(space.operators))) for kind in space.kinds}
        )
        self.quantization = nn.ParameterDict(
            {kind: nn.Parameter(torch.zeros(rows, len(space.quantization))) for kind in space.kinds}
        )

    def mixture(self) -> Sample:
        """Return the DARTS mixture of everything (arXiv 1806.09055)."""
        return Sample(
            {
                kind: Mixture(self.operators[kind].softmax(1), self.quantization[kind].softmax(1))
                for kind in self.space.kinds
            }
        )

    def fair_path(self, step: int, *, key: str, has_gates: bool = True) -> Sample:
        """Return a uniformly sampled path on which every operator of every edge gets its turn equally often.

        In each round of as many steps as there are operators, an edge's operators come in a fresh random order, each
        once (strict fairness, FairNAS); its quantisation choices likewise. The gates, if it ``has_gates``, carry the
        softmax's gradient.
        """
        picks = {
            kind: (
                self._turns(len(self.space.operators), step, (key, kind, "operator")),
                self._turns(len(self.space.quantization), step, (key, kind, "quantization")),
            )
            for kind in self.space.kinds
        }
        logits = {kind: (self.operators[kind], self.quantization[kind]) for kind in picks} if has_gates else None
        return self._path(picks, logits, step, key)

    def gumbel_path(self, step: int, *, key: str, temperature: float, has_gates: bool = True) -> Sample:
        """Return a path sampled from the architecture weights, straight-through (GDAS, arXiv 1910.04465).

        The host picks it, so after each step that moved these weights it waits for them.
        """
        noisy, picks = {}, {}
        for kind in self.space.kinds:
            rng = keyed_generator(key, "gumbel", kind, step)
            logits = (self.operators[kind], self.quantization[kind])
            noise = [_gumbel(w, rng) for w in logits]
            picks[kind] = tuple(
                ((self._known(w) + g) / temperature).argmax(1) for w, g in zip(logits, noise, strict=True)
            )
            noisy[kind] = tuple((w + moved(g, w.device)) / temperature for w, g in zip(logits, noise, strict=True))
        return self._path(picks, noisy if has_gates else None, step, key)

    def _known(self, weights: Tensor) -> Tensor:
        """Return ``weights`` as the host knows them, read again only where they have changed since."""
        version, known = self._read.get(weights, (-1, weights))
        if version != weights._version:
            known = weights.detach().cpu().clone()
            self._read[weights] = (weights._version, known)
        return known

    def _turns(self, options: int, step: int, key: tuple[str, ...]) -> Tensor:
        rng = keyed_generator(*key, step // options)
        orders = torch.rand(len(self.edges), options, generator=rng).argsort(1)
        return orders[:, step % options]

    def _path(
        self,
        picks: Mapping[str, tuple[Tensor, ...]],
        logits: Mapping[str, tuple[Tensor, ...]] | None,
        step: int,
        key: str,
    ) -> Sample:
        """Return the path along ``picks``, its sources drawn uniformly, its gates from the softmax of ``logits``."""
        cells, gates = {}, {}
        for kind in self.space.kinds:
            rows = self._draw_rows(keyed_generator(key, "sources", kind, step))
            cells[kind] = tuple(tuple(self._edge(row, picks[kind]) for row in node) for node in rows)
            if logits is None:
                continue
            chances = [w.softmax(1) for w in logits[kind]]
            gates[kind] = torch.stack(
                [torch.stack([self._gate(row, picks[kind], chances) for row in node]) for node in rows]
            )
        return Sample(Genotype(cells["normal"], cells.get("reduction", ())), gates or None)

    def _draw_rows(self, rng: torch.Generator) -> list[list[int]]:
        """Return for each node the rows of the edges it reads: distinct sources as far as there are any."""
        rows, first = [], 0
        for node in range(2, self.space.nodes + 2):
            slots = self.space.inputs_per_node
            order = torch.randperm(node, generator=rng).tolist()
            rows.append([first + order[slot % node] for slot in range(slots)])
            first += node
        return rows

    def _edge(self, row: int, picks: tuple[Tensor, ...]) -> Edge:
        operator, quantization = (int(pick[row]) for pick in picks)
        _, source = self.edges[row]
        return Edge(self.space.operators[operator], source, self.space.quantization[quantization])

    @staticmethod
    def _gate(row: int, picks: tuple[Tensor, ...], chances: list[Tensor]) -> Tensor:
        """Return a factor of value one whose gradient is that of the picked options' probabilities."""
        chosen = chances[0][row, int(picks[0][row])] * chances[1][row, int(picks[1][row])]
        return chosen - chosen.detach() + 1.0

    def probabilities(self) -> dict[str, dict[str, list[list[float]]]]:
        """Return the softmax of all weights as plain data."""
        return {
            kind: {
                "operators": F.softmax(self.operators[kind].detach(), 1).tolist(),
                "quantization": F.softmax(self.quantization[kind].detach(), 1).tolist(),
            }
            for kind in self.space.kinds
        }


def _gumbel(like: Tensor, rng: torch.Generator) -> Tensor:
    """Return Gumbel noise of the shape of ``like``, on the host."""
    uniform = torch.rand(like.shape, generator=rng, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    return -torch.log(-torch.log(uniform)).to(like.dtype)
