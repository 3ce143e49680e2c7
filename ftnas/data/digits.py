"""The 8x8 handwritten digits that scikit-learn carries: 1,797 images, 16 grey levels, ten classes.

Source: UCI, Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), its test part.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ftnas.data.dataset import Pixels
from ftnas.data.splitting import draw_stratified
from ftnas.errors import DataError
from ftnas.runtime import keyed_generator

TRAIN_COUNT = 1200
CLASSES = 10


def read_digits(directory: Path | None) -> Pixels:
    """Return 1,200 training and 597 test images ``[N, 1, 8, 8]``, the same ones in every run.

    Raises:
        DataError: a directory was given, though nothing is read from one.
    """
    if directory is not None:
        raise DataError(f"digits: comes with scikit-learn and takes no directory, got {directory}")
    from sklearn.datasets import load_digits  # takes a second, and only digits needs it

    digits = load_digits()
    images, labels = digits.images[:, None].astype(np.uint8), digits.target.astype(np.int64)
    rng = keyed_generator("digits", "test split")
    train, test = (part.numpy() for part in draw_stratified(torch.from_numpy(labels), TRAIN_COUNT, rng))
    return Pixels(images[train], labels[train], images[test], labels[test], CLASSES)
