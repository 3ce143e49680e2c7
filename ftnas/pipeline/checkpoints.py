"""Trained nets taken back out of a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ftnas.data import DATA_SETS, Dataset
from ftnas.errors import DataError, RunError
from ftnas.files import read_json, read_tensors
from ftnas.pipeline.config import DataSettings
from ftnas.pipeline.jobs import build_model, load_dataset
from ftnas.pipeline.run_folder import CONFIG, RunFolder, reopen_run
from ftnas.runtime import choose_device, keyed_generator, place, use_threads


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained net and the data set to measure it on.

    Attributes:
        name: of its training.
        model: in evaluation mode, on the device that the run's configuration names.
        data: on the same device.
    """

    name: str
    model: nn.Module
    data: Dataset


def load_checkpoint(
    path: Path, *, data: str | None = None, data_directory: Path | None = None, images: int | None = None
) -> Checkpoint:
    """Rebuild the net at ``path``: a run folder, which stands for its winner, or a folder below its ``trainings``.

    Args:
        path: where it is.
        data: name of a data set, if not the run's own.
        data_directory: its folder or file, if not where the run found it.
        images: measure on so many test images only, a fixed random choice.

    Raises:
        RunError: there is no finished training, or the data set does not fit the net.
        DataError: the data set is unknown or damaged, or has fewer images.
    """
    run, home = _find(path)
    config = run.config.model_copy(update={"data": _data_settings(run.config.data, data, data_directory)})
    use_threads(config.threads)
    device = choose_device(config.device)
    loaded = _limited(load_dataset(config, device), images)
    job = read_json(home / "model.json")
    model = place(build_model(run, job["model"], loaded, seed=job["seed"]), device)
    _load_weights(model, home / "weights.safetensors", loaded)
    return Checkpoint(str(job["name"]), model.eval(), loaded)


def _data_settings(own: DataSettings, name: str | None, directory: Path | None) -> DataSettings:
    """Return the run's own data settings, but for what is given."""
    if name is not None and name not in DATA_SETS:
        raise DataError(f"data: unknown data set {name!r}; choose from {', '.join(DATA_SETS)}")
    place = own.directory if name in (None, own.name) else None
    return own.model_copy(
        update={"name": name or own.name, "directory": place if directory is None else str(directory)}
    )


def _find(path: Path) -> tuple[RunFolder, Path]:
    """Return the run, and the folder of the training, that ``path`` means."""
    if (path / CONFIG).exists():
        run = reopen_run(path)
        result = run.file("winner", "result.json")
        if not result.exists():
            raise RunError(f"{path}: has no winner yet; finish the search, or name a folder in {path / 'trainings'}")
        home = run.file("trainings", read_json(result)["name"])
    else:
        home = path
        if not (path.parent.parent / CONFIG).exists() or not (path / "model.json").exists():
            raise RunError(f"{path}: is neither a run folder nor a training below one's trainings")
        run = reopen_run(path.parent.parent)
    if not (home / "weights.safetensors").exists():
        raise RunError(f"{home}: holds no finished training (it has no weights.safetensors)")
    return run, home


def _load_weights(model: nn.Module, file: Path, data: Dataset) -> None:
    tensors, _ = read_tensors(file)
    try:
        model.load_state_dict(tensors)
    except RuntimeError:
        shape = "x".join(map(str, data.image_shape))
        raise RunError(
            f"{file}: is of a net for other data than {data.name} ({shape}, {data.classes} classes)"
        ) from None


def _limited(data: Dataset, images: int | None) -> Dataset:
    if images is None:
        return data
    count = len(data.test_labels)
    if not 1 <= images <= count:
        raise DataError(f"images: {images}; allowed is 1 to {count}, the test images of {data.name}")
    picked = torch.randperm(count, generator=keyed_generator("campaign images"))[:images].to(data.test_labels.device)
    return Dataset(
        data.name,
        data.train_images,
        data.train_labels,
        data.test_images[picked],
        data.test_labels[picked],
        data.classes,
    )
