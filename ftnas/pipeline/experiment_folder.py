"""The folder of an experiment: the configuration that it is of, and the files about what it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ftnas.configuration import Section, read_yaml, validate
from ftnas.errors import RunError
from ftnas.files import write_json, write_text
from ftnas.holding import is_new
from ftnas.pipeline.config import Recipe
from ftnas.pipeline.run_folder import ENVIRONMENT, describe_environment
from ftnas.report.raster import write_png

CONFIG, MEASURED, RESULTS = "experiment.yaml", "measured.json", "results.json"
FREE_KEYS = ("workers", "description")


@dataclass(frozen=True)
class ExperimentSummary:
    """What an experiment found: plain data, as in ``results.json``, and where table and figure are."""

    folder: Path
    results: dict[str, Any]


def open_folder(folder: Path, config: Section, first: Recipe) -> None:
    """Make the folder of an experiment, whose ``first`` training says what of the machine counts, or go on in it.

    Raises:
        RunError: the folder is of another experiment, or of something else.
    """
    file, now = folder / CONFIG, config.model_dump(mode="json")
    if file.exists():
        there = validate(type(config), read_yaml(file), source=str(file))
        for key, value in there.model_dump(mode="json").items():
            if key not in FREE_KEYS and value != now[key]:
                raise RunError(f"{folder}: is of another experiment ({key} differs); choose another with --out")
    elif not is_new(folder):
        raise RunError(f"{folder}: exists and is not an experiment; choose another with --out")
    else:
        write_text(file, config_text(config))
    if not (folder / ENVIRONMENT).exists():  # a kill may have come between them
        write_json(folder / ENVIRONMENT, describe_environment(first))


def config_text(config: Section) -> str:
    """Return ``config`` as YAML that loads back equal."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def write_found(folder: Path, results: dict[str, Any], tables: Mapping[str, str], figure: str) -> ExperimentSummary:
    """Write the ``tables`` under their names, the ``figure``, an SVG, and when all of that is there the ``results``."""
    for name, text in tables.items():
        write_text(folder / name, text)
    write_text(folder / "figure.svg", figure)
    write_png(figure, folder / "figure.png")
    write_json(folder / RESULTS, results)
    return ExperimentSummary(folder, results)
