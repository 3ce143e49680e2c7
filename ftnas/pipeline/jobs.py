"""Trainings as plain data, each leaving a folder of results."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ftnas.campaign import Measurement, accuracy, at_rate
from ftnas.cost import measure
from ftnas.data import Dataset, load_data, split_train
from ftnas.distributed import first_does
from ftnas.errors import ModelError, RunError
from ftnas.faults import Fault
from ftnas.files import read_json, write_json, write_tensors
from ftnas.importing.python_file import load_python
from ftnas.networks import CellNetwork, build_baseline
from ftnas.networks.bounded import LARGEST, bounded
from ftnas.pipeline.answers import kept_chip_accuracies
from ftnas.pipeline.config import Recipe, RunConfig
from ftnas.pipeline.failures import Diverged, check_finite, diverged_in, failure, noticing_divergence, recorded
from ftnas.pipeline.run_folder import SPACE, Workplace, reopen
from ftnas.quantization import Quantization, quantize
from ftnas.runtime import choose_device, key_seed, keyed_generator, place, seeded
from ftnas.space import Genotype, Sizes
from ftnas.training import SHARP, EpochRecord, TrainingSettings, remove_checkpoint, train

CALIBRATION_IMAGES = 512  # of the training images, for the ranges of a net of the user's own

COSTS = ("macs", "flops", "parameters", "weight_bits")

Result = dict[str, Any]


@dataclass(frozen=True)
class TrainingJob:
    """One net to train and measure.

    Args:
        name: folder below ``trainings``.
        model: ``{"genotype": ..., "channels": ...}`` for cells, ``{"baseline": ..., "width": ..., "numbers": ...}``
            for baselines, ``{"python": "/path/FILE.py:NAME", "source": ..., "bits": ...}`` for a net of the user's own.
        part: ``split`` trains on the supernet's training split and measures on its validation split;
            ``whole`` trains on all training images and measures on the test images.
        rates: of the configured faults, the training's own first.
    """

    name: str
    label: str
    family: Literal["winner", "finalist", "random", "hand", "baseline", "own"]
    model: Mapping[str, Any]
    training: Literal["fault-tolerant", "plain"]
    size: Literal["own", "scaled"]
    part: Literal["split", "whole"]
    epochs: int
    chips: int
    rates: tuple[float, ...]
    seed: int


def load_dataset(config: Recipe, device: torch.device) -> Dataset:
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


def build_model(
    work: Workplace, spec: Mapping[str, Any], data: Dataset, *, seed: int, most: int = LARGEST
) -> nn.Module:
    """Return the net that ``spec`` (see ``TrainingJob.model``) describes, freshly initialised, on the CPU.

    Raises:
        ModelError: it is one of the user's own, and cannot be built any more; or it has more than ``most`` numbers.
    """
    if "python" in spec:
        return _build_own(spec, data, seed=seed)

    def build() -> nn.Module:
        with seeded("initialisation", seed):
            return _build_ours(work, spec, data)

    return bounded(build, most=most)


def _build_ours(work: Workplace, spec: Mapping[str, Any], data: Dataset) -> nn.Module:
    if "baseline" in spec:
        return build_baseline(
            spec["baseline"],
            width=spec["width"],
            image_shape=data.image_shape,
            classes=data.classes,
            numbers=Quantization.from_dict(spec["numbers"]),
        )
    if work.space is None:
        raise RunError(f"{work.path}: has lost the {SPACE} of its cells")
    sizes = work.space.final.model_copy(update={"channels": spec["channels"]})
    genotype = Genotype.from_dict(spec["genotype"])
    work.space.check(genotype)
    return CellNetwork(
        work.space,
        Sizes.model_validate(sizes.model_dump()),
        image_shape=data.image_shape,
        classes=data.classes,
        genotype=genotype,
    )


def own_spec(file: Path, name: str, *, bits: int) -> dict[str, Any]:
    """Return the ``TrainingJob.model`` of the net ``name`` in the Python ``file`` as that is now.

    Raises:
        ModelError: the file cannot be read.
    """
    return {"python": f"{file.resolve()}:{name}", "source": source_of(file), "bits": bits}


def source_of(file: Path) -> str:
    """Return a digest of the text of a Python ``file``.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return f"{key_seed(file.read_text(encoding='utf-8')):016x}"
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file}: cannot be read ({error})") from None


def warn_of_changes(spec: Mapping[str, Any], home: Path) -> None:
    """Warn that the Python file of a net of the user's own is no longer what it was when ``home`` was trained."""
    file = Path(str(spec.get("python", "")).rpartition(":")[0])
    if "python" in spec and source_of(file) != spec["source"]:
        warnings.warn(f"{file}: has changed since {home} was trained; the net may compute something else", stacklevel=2)


def _build_own(spec: Mapping[str, Any], data: Dataset, *, seed: int) -> nn.Module:
    """Return a net of the user's own, quantised; ranges and signs are those of the first training images."""
    file, _, name = spec["python"].rpartition(":")
    model = load_python(Path(file), name, image_shape=data.image_shape, classes=data.classes, seed=seed)
    return quantize(model.eval(), data.train_images[:CALIBRATION_IMAGES].cpu(), bits=spec["bits"])


def fault_name(faults: Sequence[Fault]) -> str:
    """Return what ``faults`` are, without their rates."""
    return " + ".join(fault.name for fault in faults)


def run_job(folder: Path, job: TrainingJob, on_epoch: Callable[[], None] = lambda: None) -> Result:
    """Train and measure ``job`` and return its result; a finished one is read, an interrupted one goes on."""
    work = reopen(folder)
    home = work.training(job.name)
    description = {**asdict(job), "rates": list(job.rates)}
    if (home / "model.json").exists():
        _check_same_job(home / "model.json", description)
    if first_does((home / "result.json").exists):
        for _ in range(job.epochs):
            on_epoch()
        return dict(read_json(home / "result.json"))
    device = choose_device(work.config.device)
    data = load_dataset(work.config, device)
    model = place(build_model(work, job.model, data, seed=job.seed), device)
    described = _describe(job, model, data)
    first_does(lambda: write_json(home / "model.json", description))
    records, diverged = _train(work, job, model, data, home, on_epoch)

    def measure_and_write() -> Result:
        write_json(home / "history.json", [asdict(record) for record in records])
        write_tensors(home / "weights.safetensors", model.state_dict(), {"model": dict(job.model), "name": job.name})
        result = {**described, **_measure(work, job, model, data, diverged=diverged)}
        write_json(home / "result.json", result)
        remove_checkpoint(home / "checkpoint.safetensors")
        return result

    return first_does(measure_and_write)


def _train(
    work: Workplace, job: TrainingJob, model: nn.Module, data: Dataset, home: Path, on_epoch: Callable[[], None]
) -> tuple[list[EpochRecord], int | None]:
    """Train ``model``; return the records and, if it diverged, the epoch in which it did, which ends its training."""
    images, labels = _images(work, job, data, training=True)
    checkpoint = home / "checkpoint.safetensors"
    records = [EpochRecord(**row) for row in first_does(lambda: recorded(checkpoint))]

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
                settings=_settings(work.config.training, job),
                faults=work.config.faults if job.training == "fault-tolerant" else (),
                key=f"training {job.seed}",
                checkpoint=checkpoint,
                on_epoch=note,
            )
    except Diverged:
        for _ in range(len(records), job.epochs):
            on_epoch()
        return records, diverged_in(records, epochs=job.epochs)
    return records, None


def _settings(settings: TrainingSettings, job: TrainingJob) -> TrainingSettings:
    """Return the settings of ``job``: a plain training goes without faults, and without what needs some."""
    if job.training == "fault-tolerant":
        return settings.model_copy(update={"epochs": job.epochs})
    objective = settings.objective if settings.objective in SHARP else "qat"
    return settings.model_copy(update={"epochs": job.epochs, "faults": (), "objective": objective})


def _images(work: Workplace, job: TrainingJob, data: Dataset, *, training: bool) -> tuple[Tensor, Tensor]:
    """Return the images that ``job`` trains on, or those it is measured on, with their labels."""
    if job.part == "whole":
        return (data.train_images, data.train_labels) if training else (data.test_images, data.test_labels)
    assert isinstance(work.config, RunConfig), "only a search chooses among nets, for which it splits"
    return validation_split(work.config, data)[0 if training else 1]


def validation_split(config: RunConfig, data: Dataset) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the training images as (images, labels) for shared weights and for everything that is chosen."""
    shared, validation = split_train(data, 1 - config.supernet.validation_share, config.seed)
    return shared, validation


def _describe(job: TrainingJob, model: nn.Module, data: Dataset) -> Result:
    kept = ("name", "label", "family", "training", "size", "seed", "epochs")
    return {
        **{key: getattr(job, key) for key in kept},
        **costs(model, data),
        **({"key": Genotype.from_dict(job.model["genotype"]).key} if "genotype" in job.model else {}),
    }


def costs(model: nn.Module, data: Dataset) -> dict[str, int]:
    """Return the costs of ``model`` for one image, as a result has them."""
    cost = measure(model, data.image_shape)
    return {key: getattr(cost, key) for key in COSTS}


def _measure(work: Workplace, job: TrainingJob, model: nn.Module, data: Dataset, *, diverged: int | None) -> Result:
    """Return the accuracies of ``model``; one that diverged computes nothing that could be measured, and guesses."""
    images, labels = _images(work, job, data, training=False)
    guess = 1 / data.classes
    rates = []
    for rate in job.rates:
        chips = (
            [guess] * job.chips if diverged is not None else _chip_accuracies(work, job, model, images, labels, rate)
        )
        rates.append({"rate": rate, **Measurement.over(chips).to_dict()})
    clean = guess if diverged is not None else accuracy(model, images, labels)
    return {
        "clean": clean,
        "fault": fault_name(work.config.faults),
        "rates": rates,
        "images": len(labels),
        "failure": failure(diverged, clean, labels),
    }


def _chip_accuracies(
    work: Workplace, job: TrainingJob, model: nn.Module, images: Tensor, labels: Tensor, rate: float
) -> list[float]:
    return kept_chip_accuracies(
        work.training(job.name) / f"chips-at-{rate:g}.jsonl",
        model,
        images,
        labels,
        faults=at_rate(work.config.faults, rate),
        chips=job.chips,
        study=f"campaign {job.part} {work.config.seed}",
    )


def _check_same_job(file: Path, description: Mapping[str, Any]) -> None:
    there = read_json(file)
    for key, value in description.items():
        if there.get(key) != value:
            raise RunError(
                f"{file.parent}: was trained as another net ({key} is {there.get(key)!r} there, {value!r} now); "
                "delete that folder to train it again"
            )
