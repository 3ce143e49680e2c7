"""Trainings as plain data, each leaving a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ftnas.campaign import Measurement, accuracy, chip_accuracies
from ftnas.cost import measure
from ftnas.data import Dataset, load_data, split_train
from ftnas.errors import RunError
from ftnas.faults import Fault, with_rate
from ftnas.files import read_json, write_json, write_tensors
from ftnas.networks import CellNetwork, build_baseline
from ftnas.pipeline.config import RunConfig
from ftnas.pipeline.run_folder import RunFolder, reopen_run
from ftnas.quantization import Quantization
from ftnas.runtime import choose_device, keyed_generator, place, seeded
from ftnas.space import Genotype, Sizes
from ftnas.training import train

Result = dict[str, Any]


@dataclass(frozen=True)
class TrainingJob:
    """One net to train and measure.

    Args:
        name: folder below ``trainings``.
        model: ``{"genotype": ..., "channels": ...}`` for cells, ``{"baseline": ..., "width": ...,
            "numbers": ...}`` otherwise.
        part: ``split`` trains on the supernet's training split and measures on its validation split;
            ``whole`` trains on all training images and measures on the test images.
        rates: of the configured faults, the training's own first.
    """

    name: str
    label: str
    family: Literal["winner", "finalist", "random", "hand", "baseline"]
    model: Mapping[str, Any]
    training: Literal["fault-tolerant", "plain"]
    size: Literal["own", "scaled"]
    part: Literal["split", "whole"]
    epochs: int
    chips: int
    rates: tuple[float, ...]
    seed: int


def load_dataset(config: RunConfig, device: torch.device) -> Dataset:
    """Load the configured data set, cut to the configured number of images by a fixed random choice."""
    directory = None if config.data.directory is None else Path(config.data.directory)
    whole = load_data(config.data.name, directory=directory, device=device)
    train_images, train_labels = _choice(whole.train_images, whole.train_labels, config.data.train_images)
    test_images, test_labels = _choice(whole.test_images, whole.test_labels, config.data.test_images)
    return Dataset(whole.name, train_images, train_labels, test_images, test_labels, whole.classes)


def _choice(images: Tensor, labels: Tensor, limit: int | None) -> tuple[Tensor, Tensor]:
    if limit is None or limit >= len(images):
        return images, labels
    picked = torch.randperm(len(images), generator=keyed_generator("image choice"))[:limit].to(images.device)
    return images[picked], labels[picked]


def build_model(run: RunFolder, spec: Mapping[str, Any], data: Dataset, *, seed: int) -> nn.Module:
    """Return the net that ``spec`` (see ``TrainingJob.model``) describes, freshly initialised."""
    with seeded("initialisation", seed):
        if "baseline" in spec:
            return build_baseline(
                spec["baseline"],
                width=spec["width"],
                image_shape=data.image_shape,
                classes=data.classes,
                numbers=Quantization.from_dict(spec["numbers"]),
            )
        sizes = run.space.final.model_copy(update={"channels": spec["channels"]})
        return CellNetwork(
            run.space,
            Sizes.model_validate(sizes.model_dump()),
            image_shape=data.image_shape,
            classes=data.classes,
            genotype=Genotype.from_dict(spec["genotype"]),
        )


def at_rate(faults: Sequence[Fault], rate: float) -> list[Fault]:
    """Return ``faults`` with the first at ``rate`` and the others changed in proportion, none above 1."""
    factor = rate / faults[0].rate if faults[0].rate else 0.0
    return [with_rate(faults[0], rate), *(with_rate(f, min(1.0, f.rate * factor)) for f in faults[1:])]


def fault_name(faults: Sequence[Fault]) -> str:
    """Return what ``faults`` are, without their rates."""
    return " + ".join(fault.name for fault in faults)


def run_job(folder: Path, job: TrainingJob, on_epoch: Callable[[], None] = lambda: None) -> Result:
    """Train and measure ``job`` and return its result; a finished one is read, an interrupted one goes on."""
    home = folder / "trainings" / job.name
    description = {**asdict(job), "rates": list(job.rates)}
    if (home / "result.json").exists():
        _check_same_job(home / "model.json", description)
        for _ in range(job.epochs):
            on_epoch()
        return dict(read_json(home / "result.json"))
    run = reopen_run(folder)
    device = choose_device(run.config.device)
    data = load_dataset(run.config, device)
    model = place(build_model(run, job.model, data, seed=job.seed), device)
    write_json(home / "model.json", description)
    records = _train(run, job, model, data, home, on_epoch)
    write_json(home / "history.json", [asdict(record) for record in records])
    write_tensors(home / "weights.safetensors", model.state_dict(), {"model": dict(job.model), "name": job.name})
    result = {**_describe(job, model, data), **_measure(run, job, model, data)}
    write_json(home / "result.json", result)
    (home / "checkpoint.safetensors").unlink(missing_ok=True)
    return result


def _train(
    run: RunFolder, job: TrainingJob, model: nn.Module, data: Dataset, home: Path, on_epoch: Callable[[], None]
) -> list[Any]:
    images, labels = data.train_images, data.train_labels
    if job.part == "split":
        (images, labels), _ = validation_split(run.config, data)
    return train(
        model,
        images,
        labels,
        settings=run.config.training.model_copy(update={"epochs": job.epochs}),
        faults=run.config.faults if job.training == "fault-tolerant" else (),
        key=f"training {job.seed}",
        checkpoint=home / "checkpoint.safetensors",
        on_epoch=lambda record: on_epoch(),
    )


def validation_split(config: RunConfig, data: Dataset) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the training images as (images, labels) for shared weights and for everything that is chosen."""
    shared, validation = split_train(data, 1 - config.supernet.validation_share, config.seed)
    return shared, validation


def _describe(job: TrainingJob, model: nn.Module, data: Dataset) -> Result:
    cost = measure(model, data.image_shape)
    kept = ("name", "label", "family", "training", "size", "seed", "epochs")
    return {
        **{key: getattr(job, key) for key in kept},
        "macs": cost.macs,
        "flops": cost.flops,
        "parameters": cost.parameters,
        "weight_bits": cost.weight_bits,
        **({"key": Genotype.from_dict(job.model["genotype"]).key} if "genotype" in job.model else {}),
    }


def _measure(run: RunFolder, job: TrainingJob, model: nn.Module, data: Dataset) -> Result:
    images, labels = data.test_images, data.test_labels
    if job.part == "split":
        _, (images, labels) = validation_split(run.config, data)
    rates = []
    for rate in job.rates:
        chips = chip_accuracies(
            model,
            images,
            labels,
            faults=at_rate(run.config.faults, rate),
            chips=range(job.chips),
            study=f"campaign {job.part} {run.config.seed}",
        )
        rates.append({"rate": rate, **Measurement.over(chips).to_dict()})
    return {
        "clean": accuracy(model, images, labels),
        "fault": fault_name(run.config.faults),
        "rates": rates,
        "images": len(labels),
    }


def _check_same_job(file: Path, description: Mapping[str, Any]) -> None:
    there = read_json(file)
    for key, value in description.items():
        if there.get(key) != value:
            raise RunError(
                f"{file.parent}: was trained as another net ({key} is {there.get(key)!r} there, {value!r} now); "
                "delete that folder to train it again"
            )
