"""The 8x8 handwritten digits that scikit-learn carries: 1,797 images, 16 grey levels, ten classes.

Source: UCI, Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), its test part.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ftnas.data.dataset import Pixels
from ftnas.data.splitting import draw_stratified
from ftnas.errors import DataError
from ftnas.runtime import keyed_generator

TRAIN_COUNT = 1200
CLASSES = 10
FILE = "datasets/data/digits.csv.gz"  # of scikit-learn: 64 pixels and the digit of an image on each line


def read_digits(directory: Path | None) -> Pixels:
    """Return 1,200 training and 597 test images ``[N, 1, 8, 8]``, the same ones in every run.

    Raises:
        DataError: a directory was given, though nothing is read from one.
    """
    if directory is not None:
        raise DataError(f"digits: comes with scikit-learn and takes no directory, got {directory}")
    pixels, digits = _read()
    images, labels = pixels.reshape(-1, 1, 8, 8).astype(np.uint8), digits.astype(np.int64)
    rng = keyed_generator("digits", "test split")
    train, test = (part.numpy() for part in draw_stratified(torch.from_numpy(labels), TRAIN_COUNT, rng))
    return Pixels(images[train], labels[train], images[test], labels[test], CLASSES)


def _read() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return pixels ``[N, 64]``, 0 to 16, and digits ``[N]``.

    To import scikit-learn takes more than a second and 100 MiB of each process, so its file is read where it is known.
    """
    package = find_spec("sklearn")
    for folder in (package.submodule_search_locations if package is not None else None) or ():
        if (file := Path(folder, FILE)).exists():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.data, digits.target
