"""A run folder as typed data: what is there, and what is not there yet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ftnas.configuration import read_yaml
from ftnas.errors import ConfigError, RunError
from ftnas.report.results import (
    AnyGenotype,
    Comparison,
    Environment,
    Key,
    Ranking,
    Result,
    Scored,
    SupernetEpoch,
    TrainingEpoch,
    Vulnerability,
)
from ftnas.space import Genotype
from ftnas.untrusted import demand_closed

Content = TypeVar("Content")

CANDIDATES = "study/candidates.json"

# Every file that a finished run has, and what it is missing without.
PARTS: Mapping[str, str] = {
    "supernet/history.json": "the supernet's training",
    CANDIDATES: "the scores of the candidates",
    "study/leaders.json": "the leaders' scores on fresh chips",
    "study/front.json": "the Pareto front",
    "winner/genotype.json": "the winning cell",
    "winner/result.json": "the winner's campaign",
    "comparison.json": "the comparison with other networks",
    "ranking.json": "the ranking quality",
}


@dataclass(frozen=True)
class Training:
    """One net trained from scratch; ``result`` is ``None`` until its campaign is done."""

    name: str
    history: tuple[TrainingEpoch, ...]
    result: Result | None


@dataclass(frozen=True)
class RunRecord:
    """Everything that a run folder says. Empty tuples and ``None`` stand for stages that have not run yet."""

    folder: Path
    config: Mapping[str, Any]
    environment: Environment
    space: Mapping[str, Any] | None
    supernet: tuple[SupernetEpoch, ...]
    candidates: tuple[Scored, ...]
    leaders: tuple[Scored, ...]
    front: tuple[str, ...]
    trainings: tuple[Training, ...]
    winner_genotype: Genotype | None
    winner_result: Result | None
    comparison: Comparison | None
    ranking: Ranking | None
    vulnerability: Vulnerability | None
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def missing(self) -> tuple[str, ...]:
        """What an unfinished run does not have yet, in words."""
        there = {CANDIDATES} if self.candidates else set()
        return tuple(part for file, part in PARTS.items() if file not in there and not (self.folder / file).exists())

    @property
    def winner(self) -> Result | None:
        """The winner's result: its own file, else its row of the comparison."""
        return self.winner_result or (self.comparison.winner if self.comparison else None)

    @property
    def front_rows(self) -> tuple[Scored, ...]:
        """The candidates of the Pareto front, cheapest first."""
        keys = set(self.front)
        return tuple(sorted((c for c in self.candidates if c.key in keys), key=lambda c: c.flops))


def read_run(folder: Path) -> RunRecord:
    """Read a run folder.

    Raises:
        RunError: it is no run folder, or one of its files is corrupt; the message names the file.
    """
    demand_closed(folder)
    for file in ("config.yaml", "environment.json"):
        if not (folder / file).is_file():
            raise RunError(f"{folder}: is not a run folder: {file} is missing")
    leaders = _many(folder / "study/leaders.json", TypeAdapter(tuple[Scored, ...]))
    return RunRecord(
        folder=folder,
        config=_yaml(folder / "config.yaml"),
        environment=_read(folder / "environment.json", TypeAdapter(Environment)),
        space=_yaml(folder / "space.yaml") if (folder / "space.yaml").exists() else None,
        supernet=_many(folder / "supernet/history.json", TypeAdapter(tuple[SupernetEpoch, ...])),
        candidates=_candidates(folder, leaders),
        leaders=leaders,
        front=_many(folder / "study/front.json", TypeAdapter(tuple[Key, ...])),
        trainings=_trainings(folder / "trainings"),
        winner_genotype=_one(folder / "winner/genotype.json", TypeAdapter(AnyGenotype)),
        winner_result=_one(folder / "winner/result.json", TypeAdapter(Result)),
        comparison=_one(folder / "comparison.json", TypeAdapter(Comparison)),
        ranking=_one(folder / "ranking.json", TypeAdapter(Ranking)),
        vulnerability=_one(folder / "winner/vulnerability.json", TypeAdapter(Vulnerability)),
        warnings=_many(folder / "warnings.json", TypeAdapter(tuple[str, ...])),
    )


def read_comparison(path: Path) -> Comparison:
    """Read a ``comparison.json``, of a run or of nets.

    Raises:
        RunError: it is missing or corrupt; the message names the place in it.
    """
    return _read(path, TypeAdapter(Comparison))


def _candidates(folder: Path, leaders: tuple[Scored, ...]) -> tuple[Scored, ...]:
    """Return the candidates; from their table, which lacks genotypes, where a run was kept without the larger file."""
    table = folder / "study/candidates.csv"
    if (folder / CANDIDATES).exists() or not table.exists():
        return _many(folder / CANDIDATES, TypeAdapter(tuple[Scored, ...]))
    genotypes = {leader.key: leader.genotype for leader in leaders}
    try:
        rows = TypeAdapter(tuple[Scored, ...]).validate_python(list(csv.DictReader(io.StringIO(_text(table)))))
    except ValidationError as error:
        raise RunError(f"{table}: {_reason(error)}") from None
    return tuple(row.model_copy(update={"genotype": genotypes.get(row.key)}) for row in rows)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from None


def _trainings(folder: Path) -> tuple[Training, ...]:
    """Return the trainings by name; a name that begins with a dot is one still being written."""
    places = sorted(folder.iterdir()) if folder.is_dir() else []
    return tuple(_training(place) for place in places if place.is_dir() and not place.name.startswith("."))


def _training(folder: Path) -> Training:
    history = _many(folder / "history.json", TypeAdapter(tuple[TrainingEpoch, ...]))
    return Training(folder.name, history, _one(folder / "result.json", TypeAdapter(Result)))


def _many(path: Path, kind: TypeAdapter[tuple[Content, ...]]) -> tuple[Content, ...]:
    return _read(path, kind) if path.exists() else ()


def _one(path: Path, kind: TypeAdapter[Content]) -> Content | None:
    return _read(path, kind) if path.exists() else None


def _read(path: Path, kind: TypeAdapter[Content]) -> Content:
    try:
        return kind.validate_json(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise RunError(f"{path}: {_reason(error)}; delete it to compute it again") from None


def _reason(error: ValidationError) -> str:
    """Return the first complaint as one line: the place in the file, and what is wrong there."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = " ".join(first["msg"].removeprefix("Value error, ").split())
    return f"{place}: {message}" if place else message


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return read_yaml(path)
    except ConfigError as error:
        raise RunError(str(error)) from None
