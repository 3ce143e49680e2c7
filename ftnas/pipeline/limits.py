"""What a search or a training may ask for, checked against space and images before anything is trained."""

from __future__ import annotations

import os
import warnings

from ftnas.cost import cheapest_costs
from ftnas.data import Dataset
from ftnas.distributed import check_shared
from ftnas.errors import ConfigError, RunError, SpaceError
from ftnas.pipeline.config import Recipe
from ftnas.search.settings import ControllerSettings
from ftnas.space import SearchSpace
from ftnas.training import check_computing


def check_cores(threads: int, workers: int = 1) -> None:
    """Refuse more threads than cores, and warn of more workers than cores for theirs.

    Threads that wait for a core spin: two on one core are ten times slower than one (two processes of two threads on
    two cores trained ResNet-20 at a fifth of the speed of one thread).

    Raises:
        ConfigError: one process would have more threads than there are cores.
    """
    cores = os.cpu_count() or 1
    if threads > cores:
        raise ConfigError(f"threads: {threads} is more than the {cores} cores of this machine; allowed is 1 to {cores}")
    if workers * threads > cores:
        warnings.warn(
            f"workers: {workers} x {threads} threads are more than the {cores} cores of this machine, which makes all "
            "of them slower",
            stacklevel=2,
        )


def check_limits(space: SearchSpace, settings: ControllerSettings, data: Dataset) -> None:
    """Refuse limits that no architecture of ``space`` keeps, alone or together.

    Raises:
        SpaceError: even the cheapest architecture is over ``search.max_flops``, the smallest over
            ``search.max_parameters``, or none keeps both.
    """
    costs = cheapest_costs(space, space.final, image_shape=data.image_shape, classes=data.classes)
    flops, parameters = settings.max_flops, settings.max_parameters
    if flops is not None and flops < costs[0][0]:
        raise SpaceError(
            f"search.max_flops: {flops} is below the cheapest architecture of space {space.name}, "
            f"which has {costs[0][0]} FLOPs"
        )
    if parameters is not None and parameters < costs[-1][1]:
        raise SpaceError(
            f"search.max_parameters: {parameters} is below the smallest architecture of space {space.name}, "
            f"which has {costs[-1][1]} parameters"
        )
    if flops is not None and parameters is not None:
        _check_both(space, flops, parameters, costs)


def check_training(config: Recipe, data: Dataset) -> None:
    """Refuse augmentation or batches of a full training that do not fit the images.

    Raises:
        RunError: a batch is larger than all of them.
        DataError: what augmentation cuts off is.
        ConfigError: the device cannot compute as it says, or a batch cannot be shared by all processes.
    """
    config.training.augmentation.check(data.image_shape)
    settings, device = config.training, data.train_images.device
    check_computing("training", settings, None, device, compile=settings.compile)
    check_batch("training", config.training.batch_size, len(data.train_images))


def check_batch(section: str, size: int, images: int) -> None:
    """Refuse a batch ``size`` of more than there are ``images``, or that processes cannot share.

    Raises:
        RunError: it is.
        ConfigError: it is no multiple of their number.
    """
    check_shared(f"{section}.batch_size", size)
    if size > images:
        raise RunError(f"{section}.batch_size: {size} is more than the {images} images of a split")


def _check_both(space: SearchSpace, flops: int, parameters: int, costs: list[tuple[int, int]]) -> None:
    smallest = [size for cost, size in costs if cost <= flops][-1]
    if smallest > parameters:
        raise SpaceError(
            f"search.max_parameters: {parameters} is below the smallest architecture of space {space.name} "
            f"within search.max_flops: {flops}, which has {smallest} parameters"
        )
