"""Trained nets taken back out of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.data import DATA_SETS, Dataset
from ftnas.errors import DataError, RunError
from ftnas.files import read_tensors
from ftnas.pipeline.config import DataSettings
from ftnas.pipeline.jobs import load_dataset, warn_of_changes
from ftnas.pipeline.run_folder import CONFIG, Workplace, is_workplace, reopen, reopen_run
from ftnas.pipeline.trained import rebuilt, training_named
from ftnas.runtime import choose_device, keyed_generator, place, use_threads


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A net and the data set to measure it on.

    Attributes:
        name: of its training, or of the user's own net.
        model: quantised, in evaluation mode, on the device that the run's configuration names.
        data: on the same device.
        origin: where it comes from, in one line.
        spec: from which ftnas can build the net anew: ``image_shape`` and ``classes`` with ``genotype``, ``space`` and
            ``sizes``, or with ``baseline``, ``width`` and ``numbers``; ``None`` for a net of the user's own.
        float_model: what a net of the user's own was before it was quantised.
        source: the ``.onnx`` or ``.pt2`` file from which a net of the user's own can be built anew, if there is one.
    """

    name: str
    model: nn.Module
    data: Dataset
    origin: str = ""
    spec: Mapping[str, Any] | None = None
    float_model: nn.Module | None = None
    source: Path | None = None


def load_checkpoint(
    path: Path, *, data: str | None = None, data_directory: Path | None = None, images: int | None = None
) -> Checkpoint:
    """Rebuild the net at ``path``: a run folder, which stands for its winner, or the folder of a training.

    Args:
        path: where it is.
        data: name of a data set, if not the run's own.
        data_directory: its folder or file, if not where the run found it.
        images: measure on so many test images only, a fixed random choice.

    Raises:
        RunError: there is no finished training, or the data set does not fit the net.
        DataError: the data set is unknown or damaged, or has fewer images.
    """
    run, home = find_training(path)
    config = run.config.model_copy(update={"data": _data_settings(run.config.data, data, data_directory)})
    use_threads(config.threads)
    device = choose_device(config.device)
    loaded = limited(load_dataset(config, device), images)
    job, model = rebuilt(run, home, loaded)
    model = place(model, device)
    weights = home / "weights.safetensors"
    load_weights_(model, read_tensors(weights)[0], weights, loaded)
    warn_of_changes(job["model"], home)
    spec = _spec(run, job["model"], loaded)
    return Checkpoint(str(job["name"]), model.eval(), loaded, origin=str(home), spec=spec)


def _spec(run: Workplace, model: Mapping[str, Any], data: Dataset) -> dict[str, Any] | None:
    """Return plain data that rebuilds the net of a training, without its folder; ``None`` for one of the user's own."""
    ends = {"image_shape": list(data.image_shape), "classes": data.classes}
    if "baseline" in model:
        return {**ends, **{key: model[key] for key in ("baseline", "width", "numbers")}}
    if run.space is None:
        return None
    sizes = {**run.space.final.model_dump(mode="json"), "channels": model["channels"]}
    return {**ends, "genotype": model["genotype"], "space": run.space.to_dict(), "sizes": sizes}


def _data_settings(own: DataSettings, name: str | None, directory: Path | None) -> DataSettings:
    """Return the run's own data settings, but for what is given."""
    if name is not None and name not in DATA_SETS:
        raise DataError(f"data: unknown data set {name!r}; choose from {', '.join(DATA_SETS)}")
    place = own.directory if name in (None, own.name) else None
    return own.model_copy(
        update={"name": name or own.name, "directory": place if directory is None else str(directory)}
    )


def find_training(path: Path) -> tuple[Workplace, Path]:
    """Return the folder of the run, training or comparison, and in it that of the one training, which ``path`` means.

    Raises:
        RunError: it means none, or one that is not finished.
    """
    run: Workplace
    if (path / CONFIG).exists():
        run = reopen_run(path)
        result = run.file("winner", "result.json")
        if not result.exists():
            raise RunError(f"{path}: has no winner yet; finish the search, or name a folder in {path / 'trainings'}")
        home = training_named(run, result)
    else:
        home, above = path, path.resolve().parent.parent
        if not (path / "model.json").exists() or not (is_workplace(path) or is_workplace(above)):
            others = "an exported folder or .safetensors, FILE.py:NAME, FILE.pt2 or FILE.onnx"
            raise RunError(f"{path}: is neither a run folder nor a training; another net is {others}")
        run = reopen(path if is_workplace(path) else above)
    if not (home / "weights.safetensors").exists():
        raise RunError(f"{home}: holds no finished training (it has no weights.safetensors)")
    return run, home


def load_weights_(model: nn.Module, tensors: Mapping[str, Tensor], file: Path, data: Dataset | None = None) -> None:
    """Put ``tensors``, read from ``file``, into ``model``.

    Raises:
        RunError: they are of another net, or of one for other ``data``.
    """
    try:
        model.load_state_dict(tensors)
    # All but the second where number formats should be.
    except (ArithmeticError, RuntimeError, AttributeError, LookupError, TypeError, ValueError):
        if data is None:
            raise RunError(f"{file}: is of another net than model.json says") from None
        shape = "x".join(map(str, data.image_shape))
        raise RunError(
            f"{file}: is of a net for other data than {data.name} ({shape}, {data.classes} classes)"
        ) from None


def limited(data: Dataset, images: int | None) -> Dataset:
    """Return ``data`` with only so many test ``images``, a fixed random choice; ``None`` means all.

    Raises:
        DataError: it has fewer.
    """
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
