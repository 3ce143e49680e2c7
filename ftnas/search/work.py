"""What workers and search hand each other: work, tasks, and what both must have in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ftnas.errors import RunError, SpaceError
from ftnas.search.candidates import Score
from ftnas.space import Genotype


@dataclass(frozen=True, slots=True)
class Experiment:
    """What decides on a score, as workers and search must have it in common.

    Attributes:
        title: names the board to people.
        recipe: digest of the configuration and the space, by which boards of one storage are told apart.
        supernet: digest of the shared weights.
    """

    title: str
    recipe: str
    supernet: str

    @property
    def board(self) -> str:
        """The name of the study that is the board."""
        return f"ftnas {self.title} {self.recipe}"


@dataclass(frozen=True, slots=True)
class Work:
    """An architecture to score, in the form in which it was proposed, on the chips from ``first`` up to ``last``."""

    genotype: Genotype
    first: int
    last: int
    name: str

    @classmethod
    def on(cls, genotype: Genotype, chips: range) -> Work:
        """Return the work of scoring ``genotype`` on ``chips``. Isomorphic forms are different work."""
        return cls(genotype, chips.start, chips.stop, f"{genotype.form}-{chips.start}-{chips.stop}")

    @property
    def chips(self) -> range:
        """The chips to score it on."""
        return range(self.first, self.last)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {"name": self.name, "genotype": self.genotype.to_dict(), "chips": [self.first, self.last]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Work:
        """Read the form that ``to_dict`` writes.

        Raises:
            RunError: it is of no work.
        """
        try:
            first, last = map(int, content["chips"])
            if not 0 <= first < last:
                raise ValueError(f"chips {first} to {last}")
            return cls(Genotype.from_dict(content["genotype"]), first, last, str(content["name"]))
        except (KeyError, TypeError, ValueError, SpaceError) as error:
            raise RunError(f"a task is not of a search of ftnas ({type(error).__name__}: {error})") from None


class State(Enum):
    """Where a task is, by Optuna's names for it: ended is without a score."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SCORED = "COMPLETE"
    ENDED = "FAIL"


@dataclass(frozen=True, slots=True)
class Task:
    """A task of the board.

    Attributes:
        identity: of the trial in its storage.
        name: of the work.
        worker: who claimed it, once that one has said so.
        content: everything else that is written on it.
    """

    identity: int
    name: str
    state: State
    worker: str | None
    content: Mapping[str, Any]

    def work(self) -> Work:
        """Return what is to be done."""
        return Work.from_dict(self.content["work"])

    def score(self) -> Score | None:
        """Return the score, where there is one, of this very work."""
        told = self.content.get("score")
        try:
            return Score.from_dict(told) if isinstance(told, dict) and told["work"] == self.name else None
        except (KeyError, TypeError, ValueError):
            return None


def digest(*contents: bytes) -> str:
    """Return 12 hexadecimal digits that stand for ``contents``."""
    joined = hashlib.blake2b(digest_size=6)
    for content in contents:
        joined.update(len(content).to_bytes(8, "little") + content)
    return joined.hexdigest()


def digest_of(content: Any) -> bytes:
    """Return plain data as bytes to digest."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
