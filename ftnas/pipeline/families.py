"""Families of nets that can be searched for: the key `family` of a configuration says which, `cells` by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftnas.configuration import override, read_yaml
from ftnas.errors import ConfigError
from ftnas.pipeline.config import run_config
from ftnas.pipeline.evolution import REPORT as EVOLVED
from ftnas.pipeline.evolution import net_columns as graph_columns
from ftnas.pipeline.evolution import net_rows as graph_rows
from ftnas.pipeline.evolution import search_graphs
from ftnas.pipeline.evolution_config import graph_config
from ftnas.pipeline.layered_config import layered_config
from ftnas.pipeline.layered_search import COLUMNS, REPORT, net_rows, search_layers, sentence
from ftnas.pipeline.run import RunSummary
from ftnas.pipeline.run import search as search_cells
from ftnas.pipeline.search_stages import StudyRequest

KEY, DEFAULT = "family", "cells"


@dataclass(frozen=True)
class SearchRequest:
    """What a search is asked for.

    Attributes:
        content: the configuration with all changes made, the key `family` included.
        source: the file that it is from, which begins the line of an error.
        run: the folder for the run, where one was named.
        data_directory: where the data are, where that was named.
        study: what is asked of the study of cells.
    """

    content: Mapping[str, Any]
    source: Path
    run: Path | None = None
    data_directory: Path | None = None
    study: StudyRequest = field(default_factory=StudyRequest)

    def folder(self, name: str) -> Path:
        """Return the run folder: the one named, or ``runs/`` and the experiment's ``name``."""
        return self.run or Path("runs") / name


@dataclass(frozen=True)
class SearchFinding:
    """What a finished search of spiking nets has to say.

    Attributes:
        folder: of the run.
        results: plain data, as in the run folder, which ``--json`` prints.
        title: of the table.
        columns: its headings; the first is of words, the others of numbers.
        rows: its cells as text.
        notes: what a reader must know, one line each.
        report: the page in the run folder.
    """

    folder: Path
    results: dict[str, Any]
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    report: Path


def _cells(request: SearchRequest) -> RunSummary:
    config = run_config(request.content, request.source, data_directory=request.data_directory)
    return search_cells(config, request.folder(config.name), request.study)


def _layers(request: SearchRequest) -> SearchFinding:
    config = layered_config(request.content, request.source, data_directory=request.data_directory)
    folder = request.folder(config.name)
    results = search_layers(config, folder)
    notes = (f"faults: {' + '.join(results['faults'])}", f"nets: {folder / 'nets'}")
    return SearchFinding(folder, results, sentence(results), COLUMNS, net_rows(results), notes, report=folder / REPORT)


def _graphs(request: SearchRequest) -> SearchFinding:
    config = graph_config(request.content, request.source)
    if request.data_directory is not None:
        raise ConfigError(f"--data-dir: would change nothing; the task {config.task} comes with scikit-learn")
    folder = request.folder(config.name)
    results = search_graphs(config, folder)
    notes = (results["sentence"], f"nets: {folder / 'nets'}, the winner: {folder / 'winner'}")
    title = "front on test samples, 95 % intervals over chips"
    return SearchFinding(folder, results, title, graph_columns(results), graph_rows(results), notes, folder / EVOLVED)


FAMILIES: Mapping[str, Callable[[SearchRequest], RunSummary | SearchFinding]] = {
    "cells": _cells,
    "snn-graph": _graphs,
    "snn-dense": _layers,
}


def search_family(request: SearchRequest) -> RunSummary | SearchFinding:
    """Search as the configuration's family does.

    Raises:
        ConfigError: there is no such family, or its configuration is wrong.
    """
    family = request.content.get(KEY, DEFAULT)
    if not isinstance(family, str) or family not in FAMILIES:
        raise ConfigError(
            f"{request.source}: family: unknown family; choose from {', '.join(FAMILIES)}, got {family!r}"
        )
    for option, value in (("--storage", request.study.storage), ("--replay", request.study.replay)):
        if value is not None and family != DEFAULT:
            raise ConfigError(f"{option}: would change nothing for family {family}; it is for {DEFAULT}")
    return FAMILIES[family](request)


def search_file(
    path: Path,
    *,
    run: Path | None = None,
    assignments: Sequence[str] = (),
    data_directory: Path | None = None,
    study: StudyRequest | None = None,
) -> RunSummary | SearchFinding:
    """Search as the configuration in ``path`` says, with each of ``assignments`` (``a.b=value``) made in it.

    Raises:
        FtnasError: what the user gave is wrong; nothing is half-written.
    """
    content = override(read_yaml(path), assignments)
    return search_family(SearchRequest(content, path, run, data_directory, study or StudyRequest()))
