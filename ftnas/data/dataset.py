"""A data set as tensors, and how pixels become normalised tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK = 2000  # images summed at a time: 50 MB of float64 at 3x32x32

Images = NDArray[Any]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images and labels, whole, on one device.

    Images are float32 ``[N, C, H, W]`` with zero mean and unit deviation per channel over the training
    images; labels are int64 ``[N]`` in ``0..classes-1``.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> Dataset:
        """Return this data set on ``device``."""
        return replace(
            self,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            test_images=self.test_images.to(device),
            test_labels=self.test_labels.to(device),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """What a reader found: checked, not yet normalised. Images ``[N, C, H, W]`` of any number type."""

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    classes: int


def normalised(name: str, pixels: Pixels, device: torch.device | str) -> Dataset:
    """Return ``pixels`` as a data set on ``device``, scaled by the training images' mean and deviation."""
    mean, deviation = channel_statistics(pixels.train_images)

    def scaled(images: Images) -> Tensor:
        return _float32(images, device).sub_(_column(mean, device)).div_(_column(deviation, device))

    return Dataset(
        name=name,
        train_images=scaled(pixels.train_images),
        train_labels=torch.from_numpy(pixels.train_labels).to(device),
        test_images=scaled(pixels.test_images),
        test_labels=torch.from_numpy(pixels.test_labels).to(device),
        classes=pixels.classes,
    )


def channel_statistics(images: Images) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation ``[C]`` of images ``[N, C, H, W]``, in float64.

    A channel that never varies gets deviation 1, so that scaling leaves it at zero.
    """
    parts = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
    values = images[:, 0].size
    mean = sum(part.sum(axis=(0, 2, 3), dtype=np.float64) for part in parts) / values
    squares = sum(np.square(part - mean[:, None, None]).sum(axis=(0, 2, 3)) for part in parts)
    deviation = np.sqrt(squares / values)
    return mean, np.where(deviation > 0, deviation, 1.0)


def _float32(images: Images, device: torch.device | str) -> Tensor:
    """Return a float32 copy; the values travel to the device in their own type, which for uint8 is a quarter."""
    native = np.ascontiguousarray(images, dtype=images.dtype.newbyteorder("="))
    return torch.from_numpy(native).to(device).to(torch.float32, copy=True)


def _column(values: NDArray[np.float64], device: torch.device | str) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
