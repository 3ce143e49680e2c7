"""What a study knows of the architectures proposed so far: nothing is scored twice, nor over the limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftnas.cost import Cost
from ftnas.errors import RunError, SpaceError
from ftnas.search.candidates import Candidate, Limits, Score
from ftnas.search.settings import ControllerSettings
from ftnas.space import Genotype, SearchSpace

First = Sequence[tuple[str, Genotype]]
"""(source, genotype) of the architectures that a study scores before its controller proposes any"""

Order = Sequence[tuple[str, Mapping[str, int]]]
"""(source, choices) of proposals, one after another"""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A genotype, its exact cost, and the relative overshoot of each limit, at most 0 where it is kept."""

    genotype: Genotype
    cost: Cost
    excess: Mapping[str, float]

    @property
    def allowed(self) -> bool:
        """Whether all limits are kept."""
        return all(overshoot <= 0 for overshoot in self.excess.values())


class Ledger:
    """The distinct candidates of a study, by key, in the order in which they were scored.

    Args:
        evaluate: scores a genotype in the form in which it was proposed, which may take long.
        cost: the exact cost by arithmetic, which takes little.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        evaluate: Callable[[Genotype], Score],
        cost: Callable[[Genotype], Cost],
        limits: Limits,
    ) -> None:
        self.space = space
        self._evaluate = evaluate
        self._cost = cost
        self._limits = limits
        self._found: dict[str, Candidate] = {}
        self._cheapest: Cost | None = None

    @property
    def candidates(self) -> list[Candidate]:
        """All candidates, by first trial."""
        return list(self._found.values())

    def examine(self, choices: Mapping[str, int]) -> Proposal:
        """Return what is known of ``choices`` before anything is evaluated."""
        genotype = settled(self.space, self.space.genotype(choices))
        cost = self._cost(genotype)
        if self._cheapest is None or cost.flops < self._cheapest.flops:
            self._cheapest = cost
        return Proposal(genotype, cost, self._limits.excess(cost))

    def knows(self, key: str) -> bool:
        """Return whether the architecture ``key`` has its score."""
        return key in self._found

    def score(
        self, proposal: Proposal, *, trial: int, source: str, recorded: Score | None = None
    ) -> tuple[Score, Candidate | None]:
        """Return the score of an allowed proposal, and the candidate if it is a new one.

        Args:
            recorded: the score of an earlier run, which saves evaluating again.
        """
        known = self._found.get(proposal.genotype.key)
        if known is not None:
            return known.score, None
        score = recorded or self._evaluate(proposal.genotype)
        candidate = Candidate(proposal.genotype, score, proposal.cost, trial, source)
        self._found[candidate.genotype.key] = candidate
        return score, candidate

    def allowed_first(self, first: First) -> list[tuple[str, dict[str, int]]]:
        """Return source and choices of those of ``first`` that keep the limits."""
        pairs = [(source, self.space.choices(genotype)) for source, genotype in first]
        return [(source, choices) for source, choices in pairs if self.examine(choices).allowed]

    def demand_any(self) -> None:
        """Raise a ``SpaceError`` if not one proposal kept the limits."""
        if not self._found and self._cheapest is not None:
            raise SpaceError(
                f"space {self.space.name}: no architecture was found within {self._limits}; the cheapest "
                f"proposal has {self._cheapest.flops} FLOPs and {self._cheapest.parameters} parameters"
            )


def settled(space: SearchSpace, genotype: Genotype) -> Genotype:
    """Return ``genotype`` with the quantisation that counts where it was chosen more than once or for nothing.

    Nodes and edges keep their places, so in a supernet it computes what ``genotype`` computes, and its key is that
    of ``space.canonical(genotype)``.
    """
    return Genotype(*(space._settled(kind, genotype.cell(kind)) for kind in space.kinds))


def fingerprint(
    space: SearchSpace, settings: ControllerSettings, *, first: First, seed: int, replay: Order | None = None
) -> dict[str, str | int | float | None]:
    """Return everything that decides which architectures are proposed, so a study is continued only as itself.

    The number of trials is not part of it: a study may go on for longer.
    """
    sampler = settings.sampler if settings.controller == "optuna" else None
    return {
        "controller": settings.controller,
        "sampler": sampler,
        "population": settings.population_size if sampler in (None, "nsga2") else None,
        "max_flops": settings.max_flops,
        "max_parameters": settings.max_parameters,
        "objective": settings.objective,
        "faulty_share": settings.faulty_share if settings.objective == "reward" else None,
        "vulnerability": None if settings.vulnerability == "none" else settings.vulnerability,
        "in flight": settings.in_flight,
        "replay": None if replay is None else _digest(replay),
        "seed": seed,
        "space": _digest(space.model_dump(mode="json", exclude={"description"})),
        "first architectures": _digest([[source, genotype.to_dict()] for source, genotype in first]),
    }


def demand_same(path: Path, *, found: Mapping[str, Any] | None, ours: Mapping[str, Any]) -> None:
    """Raise a ``RunError`` if the study in ``path`` was made with another fingerprint."""
    if not isinstance(found, Mapping):
        raise RunError(f"{path}: is not a study of ftnas; choose another run folder")
    for key, value in ours.items():
        if found.get(key) != value:
            raise RunError(
                f"{path}: belongs to another study ({key} is {found.get(key)} there and {value} here); "
                "choose another run folder"
            )


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
