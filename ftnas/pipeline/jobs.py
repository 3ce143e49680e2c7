"""Trainings as plain data, each leaving a folder of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ftnas.campaign import Measurement, accuracy, at_rate, chip_accuracies
from ftnas.cost import measure
from ftnas.data import Dataset, load_data, split_train
from ftnas.errors import RunError
from ftnas.faults import Fault
from ftnas.files import read_json, write_json, write_tensors
from ftnas.networks import CellNetwork, build_baseline
from ftnas.pipeline.config import RunConfig
from ftnas.pipeline.failures import Diverged, check_finite, diverged_in, failure, noticing_divergence, recorded
from ftnas.pipeline.run_folder import RunFolder, reopen_run
from ftnas.quantization import Quantization
from ftnas.runtime import choose_device, keyed_generator, place, seeded
from ftnas.space import Genotype, Sizes
from ftnas.training import EpochRecord, train

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
    described = _describe(job, model, data)
    write_json(home / "model.json", description)
    records, diverged = _train(run, job, model, data, home, on_epoch)
    write_json(home / "history.json", [asdict(record) for record in records])
    write_tensors(home / "weights.safetensors", model.state_dict(), {"model": dict(job.model), "name": job.name})
    result = {**described, **_measure(run, job, model, data, diverged=diverged)}
    write_json(home / "result.json", result)
    (home / "checkpoint.safetensors").unlink(missing_ok=True)
    return result


def _train(
    run: RunFolder, job: TrainingJob, model: nn.Module, data: Dataset, home: Path, on_epoch: Callable[[], None]
) -> tuple[list[EpochRecord], int | None]:
    """Train ``model``; return the records and, if it diverged, the epoch in which it did, which ends its training."""
    images, labels = _images(run, job, data, training=True)
    checkpoint = home / "checkpoint.safetensors"
    records = [EpochRecord(**row) for row in recorded(checkpoint)]

    def note(record: EpochRecord) -> None:
        records.append(record)
        on_epoch()
        check_finite(record.loss)

    try:
        with noticing_divergence(model):
            train(
                model,
                images,
                labels,
                settings=run.config.training.model_copy(update={"epochs": job.epochs}),
                faults=run.config.faults if job.training == "fault-tolerant" else (),
                key=f"training {job.seed}",
                checkpoint=checkpoint,
                on_epoch=note,
            )
    except Diverged:
        for _ in range(len(records), job.epochs):
            on_epoch()
        return records, diverged_in(records, epochs=job.epochs)
    return records, None


def _images(run: RunFolder, job: TrainingJob, data: Dataset, *, training: bool) -> tuple[Tensor, Tensor]:
    """Return the images that ``job`` trains on, or those it is measured on, with their labels."""
    if job.part == "split":
        return validation_split(run.config, data)[0 if training else 1]
    return (data.train_images, data.train_labels) if training else (data.test_images, data.test_labels)


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


def _measure(run: RunFolder, job: TrainingJob, model: nn.Module, data: Dataset, *, diverged: int | None) -> Result:
    """Return the accuracies of ``model``; one that diverged computes nothing that could be measured, and guesses."""
    images, labels = _images(run, job, data, training=False)
    guess = 1 / data.classes
    rates = []
    for rate in job.rates:
        chips = [guess] * job.chips if diverged is not None else _chip_accuracies(run, job, model, images, labels, rate)
        rates.append({"rate": rate, **Measurement.over(chips).to_dict()})
    clean = guess if diverged is not None else accuracy(model, images, labels)
    return {
        "clean": clean,
        "fault": fault_name(run.config.faults),
        "rates": rates,
        "images": len(labels),
        "failure": failure(diverged, clean, labels),
    }


def _chip_accuracies(
    run: RunFolder, job: TrainingJob, model: nn.Module, images: Tensor, labels: Tensor, rate: float
) -> list[float]:
    return chip_accuracies(
        model,
        images,
        labels,
        faults=at_rate(run.config.faults, rate),
        chips=range(job.chips),
        study=f"campaign {job.part} {run.config.seed}",
    )


def _check_same_job(file: Path, description: Mapping[str, Any]) -> None:
    there = read_json(file)
    for key, value in description.items():
        if there.get(key) != value:
            raise RunError(
                f"{file.parent}: was trained as another net ({key} is {there.get(key)!r} there, {value!r} now); "
                "delete that folder to train it again"
            )
