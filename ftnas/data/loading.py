"""The data sets by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from ftnas.data.cifar10 import read_cifar10
from ftnas.data.dataset import Dataset, Pixels, normalised
from ftnas.data.digits import read_digits
from ftnas.data.image_folder import read_image_folder
from ftnas.data.npz import read_npz
from ftnas.errors import DataError

READERS: Mapping[str, Callable[[Path | None], Pixels]] = {
    "digits": read_digits,
    "cifar10": read_cifar10,
    "npz": read_npz,
    "folder": read_image_folder,
}
DATA_SETS: tuple[str, ...] = tuple(READERS)


def load_data(name: str, *, directory: Path | None = None, device: torch.device | str = "cpu") -> Dataset:
    """Load a data set, whole, as normalised tensors on ``device``.

    Args:
        name: one of ``DATA_SETS``.
        directory: for ``cifar10`` the folder or archive, for ``npz`` the file, for ``folder`` the folder, for
            ``digits`` nothing.
        device: where the tensors live.

    Raises:
        DataError: the name is unknown, or what stands at ``directory`` is not that data set.
    """
    if name not in READERS:
        raise DataError(f"data: unknown data set {name!r}; choose from {', '.join(DATA_SETS)}")
    return normalised(name, READERS[name](directory), device)
