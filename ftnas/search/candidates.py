"""A scored architecture, what it costs, and the limits it has to keep."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftnas.cost import Cost
from ftnas.errors import RunError, SpaceError
from ftnas.files import read_json
from ftnas.space.genotype import Genotype
from ftnas.untrusted import understood


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracies in [0, 1] on the study's images: without faults, and the mean over the study's chips.

    Attributes:
        chips: the accuracy on each chip, in the order of the study's chips.
        vulnerability: the factor that the study minimises, at least 0; ``None`` where it minimises none.
    """

    clean: float
    faulty: float
    chips: tuple[float, ...]
    vulnerability: float | None = None

    def __post_init__(self) -> None:
        wrong = [value for value in (self.clean, self.faulty, *self.chips) if not 0 <= value <= 1]
        if wrong:
            raise ValueError(f"an accuracy must be in [0, 1], got {wrong[0]}")
        if self.vulnerability is not None and not self.vulnerability >= 0:
            raise ValueError(f"a vulnerability must be at least 0, got {self.vulnerability}")

    @property
    def standard_error(self) -> float:
        """Of the mean over chips; not a number with fewer than two chips."""
        if len(self.chips) < 2:
            return math.nan
        return statistics.stdev(self.chips) / math.sqrt(len(self.chips))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        known = {} if self.vulnerability is None else {"vulnerability": self.vulnerability}
        return {"clean": self.clean, "faulty": self.faulty, "chips": list(self.chips), **known}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Score:
        """Read the form that ``to_dict`` writes; other keys are ignored."""
        factor = row.get("vulnerability")
        chips = tuple(float(chip) for chip in row["chips"])
        return cls(float(row["clean"]), float(row["faulty"]), chips, None if factor is None else float(factor))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A genotype in the form in which it was scored.

    Isomorphic cells share a ``genotype.key`` but read different weights of a supernet, so the form counts.

    Attributes:
        trial: the number of the proposal that was scored, counted from 0.
        source: who proposed it: ``magnitude``, ``perturbation`` or ``sampler``.
    """

    genotype: Genotype
    score: Score
    cost: Cost
    trial: int
    source: str

    def to_dict(self) -> dict[str, Any]:
        """Return a row of ``study/candidates.json``."""
        return {
            "trial": self.trial,
            "key": self.genotype.key,
            "genotype": self.genotype.to_dict(),
            **self.score.to_dict(),
            "macs": self.cost.macs,
            "flops": self.cost.flops,
            "parameters": self.cost.parameters,
            "weight_bits": self.cost.weight_bits,
            "source": self.source,
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Candidate:
        """Read a row of ``study/candidates.json``.

        Raises:
            RunError: the row is incomplete.
        """
        try:
            cost = Cost(int(row["macs"]), int(row["parameters"]), int(row["weight_bits"]))
            genotype = Genotype.from_dict(row["genotype"])
            return cls(genotype, Score.from_dict(row), cost, int(row["trial"]), str(row["source"]))
        except (ArithmeticError, KeyError, TypeError, ValueError, SpaceError) as error:
            raise RunError(f"candidate {row.get('key')}: {type(error).__name__}: {error}") from None


def read_candidates(path: Path) -> list[Candidate]:
    """Return the candidates of ``study/candidates.json``.

    Raises:
        RunError: the file is missing, damaged, or a row is incomplete.
    """
    with understood(path):
        return [Candidate.from_dict(row) for row in read_json(path)]


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest cost that is allowed; ``None`` is no limit."""

    max_flops: int | None = None
    max_parameters: int | None = None

    def excess(self, cost: Cost) -> dict[str, float]:
        """Return the relative overshoot of each limit, such as 0.1 for 10 % too much; at most 0 is allowed."""
        pairs = {"flops": (cost.flops, self.max_flops), "parameters": (cost.parameters, self.max_parameters)}
        return {name: given / limit - 1 for name, (given, limit) in pairs.items() if limit is not None}

    def violated_by(self, cost: Cost) -> bool:
        """Return whether ``cost`` is over a limit."""
        return any(overshoot > 0 for overshoot in self.excess(cost).values())

    def __str__(self) -> str:
        limits = {"max_flops": self.max_flops, "max_parameters": self.max_parameters}
        given = [f"{name}={limit}" for name, limit in limits.items() if limit is not None]
        return ", ".join(given) or "no limits"
