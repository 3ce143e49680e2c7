"""Experiments with hardening: trained nets, protected in several ways at several budgets, on the same chips."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from torch import nn

from ftnas.campaign import CONFIDENCE, accuracy
from ftnas.campaign.estimates import DROP
from ftnas.campaign.levels import Level, levels_of
from ftnas.configuration import Name, Section, read_yaml, validate
from ftnas.errors import ConfigError, FtnasError
from ftnas.files import read_json, write_json
from ftnas.hardening.methods import HardeningOptions
from ftnas.hardening.passes import harden, under_hardened_names
from ftnas.hardening.vulnerability import LayerVulnerability, vulnerability_of
from ftnas.holding import holding
from ftnas.networks.hardened import protections_of
from ftnas.pipeline.analysis_steps import kept_steps
from ftnas.pipeline.answers import kept_chip_accuracies
from ftnas.pipeline.checkpoints import Checkpoint, load_checkpoint
from ftnas.pipeline.config import TrainConfig
from ftnas.pipeline.experiment_folder import CONFIG, MEASURED, ExperimentSummary, open_folder, write_found
from ftnas.pipeline.grids import gains, mean_interval, merged
from ftnas.pipeline.jobs import run_job
from ftnas.pipeline.progress import progress_bar
from ftnas.pipeline.training import prepare_training
from ftnas.quantization import quantized_layers
from ftnas.report.hardening_figure import hardening_figure

FAMILY = "hardening"
NONE, ALL = "none", "all"

Keys = dict[str, Any]
Row = dict[str, Any]


class HardeningExperiment(Section):
    """Nets, and ways to protect them.

    ``nets``: keys of a training (see ``TrainConfig``) for each. ``ways``: keys of ``HardeningOptions`` for each, and
    the ``budgets`` at which it is measured, beside the whole net: shares of the resource that is budgeted. Each net
    is trained once for each of ``seeds``, and measured under each of ``faults`` on the same ``chips``.
    """

    name: Name
    family: Literal["hardening"]
    description: str = ""
    nets: dict[str, Keys] = Field(min_length=1)
    ways: dict[str, Keys] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), min_length=1)
    faults: tuple[str, ...] = Field(min_length=1)
    chips: int = Field(20, ge=2)
    test_images: int | None = Field(None, ge=10)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for way in self.ways:
            try:
                list(self.options(way))
            except (ArithmeticError, FtnasError, TypeError, ValueError) as error:
                raise ValueError(f"ways.{way}: {error}") from None
        for text in self.faults:
            try:
                levels_of(text, None)
            except FtnasError as error:
                raise ValueError(f"faults: {error}") from None
        return self

    def training(self, net: str, seed: int) -> TrainConfig:
        """Return the training of ``net``.

        Raises:
            ConfigError: its keys make no valid training.
        """
        return validate(TrainConfig, {**self.nets[net], "seed": seed}, source=f"{self.name}: nets.{net}")

    def options(self, way: str) -> Iterator[tuple[str, HardeningOptions]]:
        """Yield the budgets of ``way`` as words, and what is asked for at each.

        Raises:
            HardeningError: its keys are impossible.
        """
        keys = dict(self.ways[way])
        budgets = keys.pop("budgets", [])
        unknown = set(keys) - set(HardeningOptions.__dataclass_fields__)
        if unknown:
            raise ConfigError(f"{min(unknown)}: unknown key; choose from budgets, {', '.join(_KEYS)}")
        for budget in budgets:
            yield f"{budget:g}", HardeningOptions(**keys, budget=float(budget))
        yield ALL, HardeningOptions(**keys)


_KEYS = tuple(key for key in HardeningOptions.__dataclass_fields__ if key != "budget")


@dataclass(frozen=True, slots=True, eq=False)
class _Trained:
    """A trained net, and how vulnerable its parts are."""

    net: Checkpoint
    vulnerability: Mapping[str, LayerVulnerability]


def is_of_hardening(path: Path) -> bool:
    """Return whether the experiment in ``path`` is one of hardening."""
    return read_yaml(path).get("family") == FAMILY


def load_hardening_experiment(path: Path, *, data_directory: Path | None = None) -> HardeningExperiment:
    """Load the configuration of an experiment.

    Raises:
        ConfigError: a key, type or value is wrong, of the experiment or of one of its trainings.
    """
    content = read_yaml(path)
    if data_directory is not None and isinstance(content.get("nets"), dict):
        directory = {"data": {"directory": str(data_directory)}}
        for net, keys in content["nets"].items():
            own = keys.get("data") if isinstance(keys, dict) else None
            if isinstance(keys, dict) and (not isinstance(own, dict) or own.get("name") != "digits"):
                content["nets"][net] = merged(keys, directory)
    config = validate(HardeningExperiment, content, source=str(path))
    for net in config.nets:
        config.training(net, config.seeds[0])
    return config


def run_hardening_experiment(config: HardeningExperiment, folder: Path) -> ExperimentSummary:
    """Train, protect and measure all that ``config`` says, and write table and figure.

    The same call goes on after a kill: trainings at their last checkpoint, measurements at the last whole one.

    Raises:
        FtnasError: what the user gave is wrong; nothing is half-written.
    """
    with holding(folder, CONFIG):
        return _run(config, folder)


def _run(config: HardeningExperiment, folder: Path) -> ExperimentSummary:
    open_folder(folder, config, config.training(next(iter(config.nets)), config.seeds[0]))
    steps = 1 + sum(len(list(config.options(way))) for way in config.ways)
    found: dict[tuple[str, str, str], list[Row]] = {}
    with progress_bar(config.name, steps * len(config.nets) * len(config.seeds)) as advance:
        for net in config.nets:
            for seed in config.seeds:
                for (way, budget), row in _measured(config, net, seed, folder):
                    found.setdefault((net, way, budget), []).append(row)
                    advance()
    rows = [_row(*place, seeds, found[place[0], NONE, NONE]) for place, seeds in found.items()]
    results = {
        "name": config.name,
        "seeds": list(config.seeds),
        "chips": config.chips,
        "confidence": CONFIDENCE,
        "nets": list(config.nets),
        "ways": list(config.ways),
        "rows": rows,
    }
    return write_found(folder, results, {"results.csv": hardening_csv(rows)}, hardening_figure(results))


def _measured(config: HardeningExperiment, name: str, seed: int, folder: Path) -> Iterator[tuple[tuple[str, str], Row]]:
    """Yield what was measured of one training without protection, then in each way at each budget."""
    home = folder / "trainings" / f"{_file_name(name)}-seed-{seed}"
    work, job = prepare_training(config.training(name, seed), home)
    run_job(work.path, job, lambda: None)
    trained: _Trained | None = None
    cases = [(way, budget, options) for way in config.ways for budget, options in config.options(way)]
    for way, budget, options in [(NONE, NONE, None), *cases]:
        file = home / MEASURED.replace(".json", "") / f"{_file_name(way)}-{budget}.json"
        if not file.exists():
            trained = trained or _loaded(config, home)
            write_json(file, _measure(config, trained, options, file))
        yield (way, budget), read_json(file)


def _loaded(config: HardeningExperiment, home: Path) -> _Trained:
    net = load_checkpoint(home, images=config.test_images)
    needed = [options for way in config.ways for _, options in config.options(way)]
    images = net.data.train_images[: needed[0].images]
    with kept_steps(home, net.model, images, estimator="default", title="vulnerability") as steps:
        return _Trained(net, vulnerability_of(net.model, images, steps=steps))


def _measure(config: HardeningExperiment, trained: _Trained, options: HardeningOptions | None, file: Path) -> Row:
    """Return accuracies and costs, which go into ``file``, of the net, protected as ``options`` say."""
    net, levels = trained.net, [level for text in config.faults for level in levels_of(text, None)]
    images, labels = net.data.test_images, net.data.test_labels
    shares: Mapping[str, float] = dict.fromkeys(("macs", "work", "parameters", "activation_bytes"), 0.0)
    faults, clean = [], accuracy(net.model, images, labels)
    for index, level in enumerate(levels):
        model: nn.Module = net.model
        if options is not None:
            hardened = harden(
                model, net.data.train_images, options, faults=level.faults, vulnerability=trained.vulnerability
            )
            model, shares = hardened.model, hardened.overhead.shares
            clean = accuracy(model, images, labels)
        chips = kept_chip_accuracies(
            file.with_suffix(f".{index}.jsonl"),
            _renamed(model),
            images,
            labels,
            faults=level.faults,
            chips=config.chips,
            study=config.name,
        )
        faults.append({"fault": _name(level), "rate": level.rate, "chips": chips})
    return {"clean": clean, "overhead": dict(shares), "faults": faults}


def _renamed(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose layers have the paths that they have where all of them are hardened."""
    taken = tuple(f"{path}." for path in protections_of(model))
    return under_hardened_names(model, [path for path in quantized_layers(model) if not path.startswith(taken)])


def _name(level: Level) -> str:
    return " + ".join(fault.name for fault in level.faults)


def _file_name(words: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in words)


def _row(net: str, way: str, budget: str, seeds: list[Row], bare: list[Row]) -> Row:
    """Return means over seeds. Intervals are over chips, each the mean of the same trainings."""
    faults = []
    for index, fault in enumerate(seeds[0]["faults"]):
        chips = _by_chip(seeds, index)
        gain = mean_interval(gains(chips, _by_chip(bare, index)), bounds=DROP)
        faults.append(
            {"fault": fault["fault"], "rate": fault["rate"], **mean_interval(chips), "gain": gain["mean"],
             "gain_low": gain["low"], "gain_high": gain["high"],
             "seeds": [fmean(seed["faults"][index]["chips"]) for seed in seeds]}
        )  # fmt: skip
    overhead = {key: fmean(seed["overhead"][key] for seed in seeds) for key in seeds[0]["overhead"]}
    clean = fmean(seed["clean"] for seed in seeds)
    return {"net": net, "way": way, "budget": budget, "clean": clean, "overhead": overhead, "faults": faults}


def _by_chip(seeds: list[Row], index: int) -> list[float]:
    return [fmean(chip) for chip in zip(*(seed["faults"][index]["chips"] for seed in seeds), strict=True)]


def hardening_csv(rows: list[Row]) -> str:
    """Return one line for each net, way, budget and fault."""
    lines = [
        {**{key: row[key] for key in ("net", "way", "budget", "clean")},
         **{f"extra_{key}": value for key, value in row["overhead"].items()},
         **{key: value for key, value in fault.items() if key != "seeds"}}
        for row in rows
        for fault in row["faults"]
    ]  # fmt: skip
    text = io.StringIO()
    columns = list(dict.fromkeys(key for line in lines for key in line))
    writer = csv.DictWriter(text, columns, restval=0.0, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
