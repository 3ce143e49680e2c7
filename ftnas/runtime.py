"""Seeds, threads and keyed random streams: the only place that touches global state."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from ftnas.errors import ConfigError

Model = TypeVar("Model", bound=nn.Module)


def key_seed(*key: str | int) -> int:
    """Return a 63-bit seed that depends on every part of ``key`` and on nothing else."""
    text = "\x1f".join(str(part) for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def keyed_generator(*key: str | int) -> torch.Generator:
    """Return a CPU generator whose stream is a function of ``key`` (2 us to seed).

    Torch's Mersenne twister takes the lowest 32 bits of a seed, so of n streams n^2 / 2^33 pairs are expected to be
    alike: one of 100,000 streams, and of 3 million about a thousand.
    """
    return torch.Generator().manual_seed(key_seed(*key))


@contextmanager
def seeded(*key: str | int) -> Iterator[None]:
    """Run the block with a global stream that depends on ``key`` only, and give the caller's stream back after it.

    For what draws from the global stream and takes no generator: the initialisation of layers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_seed(*key))
        yield


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put every module of ``models`` into evaluation mode for the block; afterwards each is in the mode it was in."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


def use_threads(threads: int) -> None:
    """Give torch ``threads`` threads, never more than there are cores: waiting threads make a step ten times slower.

    Warns where that are fewer than were asked for, as in a run folder from a larger machine.
    """
    cores = os.cpu_count() or 1
    if threads > cores:
        warnings.warn(
            f"threads: {threads} is more than the {cores} cores of this machine: {cores} are used", stacklevel=2
        )
    torch.set_num_threads(max(1, min(threads, cores)))


def place(model: Model, device: torch.device) -> Model:
    """Return ``model`` on ``device`` in channels-last layout, in which a training step takes 0.75 of the time."""
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@contextmanager
def multiplying_in(precision: str) -> Iterator[None]:
    """Let GPUs multiply float32 numbers in the block as they are, or if ``precision`` is ``tf32`` rounded to 11 bits.

    Torch itself rounds them in convolutions unless it is told not to.
    """
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        yield
    finally:
        for place, kept in zip(places, before, strict=True):
            place.fp32_precision = kept


def moved(values: Tensor, device: torch.device) -> Tensor:
    """Return ``values`` of the host on ``device``: a GPU fetches them while the host goes on."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``: ``cpu``, ``cuda``, or ``auto``, which is a GPU where there is one.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        return _own_gpu() if torch.cuda.is_available() else torch.device("cpu")
    if name not in ("cpu", "cuda"):
        raise ConfigError(f"unknown device {name!r}; choose from auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: torch finds no GPU here; choose auto or cpu")
    return torch.device("cpu") if name == "cpu" else _own_gpu()


def _own_gpu() -> torch.device:
    """Return the GPU of this process: where torchrun started several on this machine, each has one."""
    if "LOCAL_RANK" not in os.environ:
        return torch.device("cuda")
    index, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if index >= count:
        raise ConfigError(
            f"device cuda: process {index + 1} of this machine has no GPU of its own; torch finds {count} here, so "
            f"start at most {count} with --nproc-per-node, or choose device cpu"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)
