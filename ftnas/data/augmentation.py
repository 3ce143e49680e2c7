"""Crop, flip and cutout of whole batches: each image gets its own change, and all change at once.

Drawing is apart from applying: ``draw_changes`` says what happens to each image, the rest is arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ftnas.configuration import Section
from ftnas.errors import DataError
from ftnas.runtime import moved


class Augmentation(Section):
    """How training images are varied; everything is off by default.

    ``crop_padding``: pixels added on each side before a crop back to size. ``flip``: mirror half of the
    images. ``cutout``: side of a square set to zero, in pixels (arXiv 1708.04552). Zero, also of the padding,
    is the mean of the training images.
    """

    crop_padding: int = Field(default=0, ge=0)
    flip: bool = False
    cutout: int = Field(default=0, ge=0)

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Refuse a crop or a cutout that could leave nothing of an image ``(C, H, W)``.

        Raises:
            DataError: ``crop_padding`` or ``cutout`` reaches the image's side.
        """
        _, height, width = image_shape
        for key, pixels in (("crop_padding", self.crop_padding), ("cutout", self.cutout)):
            if pixels >= min(height, width):
                allowed = f"0..{min(height, width) - 1} for images of {height}x{width}"
                raise DataError(f"augmentation.{key}: must be {allowed}, got {pixels}")


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What happens to each of N images; every field is ``[N]``.

    ``top`` and ``left``: where the crop begins in the padded image. ``mirrored``: whether left and right are
    exchanged. ``hole_row`` and ``hole_column``: the pixel in the middle of the cut-out square.
    """

    top: Tensor
    left: Tensor
    mirrored: Tensor
    hole_row: Tensor
    hole_column: Tensor

    def part(self, start: int, end: int) -> Changes:
        """Return the changes of images ``start`` to ``end``, the latter excluded."""
        fields = (self.top, self.left, self.mirrored, self.hole_row, self.hole_column)
        return Changes(*(field[start:end] for field in fields))

    def to(self, device: torch.device) -> Changes:
        """Return these changes on ``device``."""
        fields = (self.top, self.left, self.mirrored, self.hole_row, self.hole_column)
        return Changes(*(moved(field, device) for field in fields))


def draw_changes(
    count: int, image_shape: tuple[int, int, int], augmentation: Augmentation, rng: torch.Generator
) -> Changes:
    """Draw the changes of ``count`` images; the draws of one kind do not depend on whether another is on."""
    _, height, width = image_shape

    def below(high: int) -> Tensor:
        return torch.randint(high, (count,), generator=rng)

    offsets = 2 * augmentation.crop_padding + 1
    return Changes(
        top=below(offsets),
        left=below(offsets),
        mirrored=below(2).bool() & augmentation.flip,
        hole_row=below(height),
        hole_column=below(width),
    )


def augment(images: Tensor, changes: Changes, augmentation: Augmentation) -> Tensor:
    """Return ``images`` ``[N, C, H, W]`` as ``changes`` says: cropped, then mirrored, then cut out."""
    if augmentation.crop_padding:
        images = crop(images, changes.top, changes.left, padding=augmentation.crop_padding)
    if augmentation.flip:
        images = mirror(images, changes.mirrored)
    if augmentation.cutout:
        images = cut_out(images, changes.hole_row, changes.hole_column, side=augmentation.cutout)
    return images


def crop(images: Tensor, top: Tensor, left: Tensor, *, padding: int) -> Tensor:
    """Pad each side by ``padding`` zeros and return the window of the old size at ``top``, ``left``.

    The windows are views until one is picked for each image: twice the speed of an index per pixel.
    """
    count, _, height, width = images.shape
    windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(count, device=images.device), :, top, left]


def mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Exchange left and right where ``mirrored`` ``[N]`` is true."""
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def cut_out(images: Tensor, row: Tensor, column: Tensor, *, side: int) -> Tensor:
    """Zero a square around ``row``, ``column`` of each image; at the border only a part of it lies inside."""
    height, width = images.shape[2:]
    rows = _span(row, side, height)[:, None, :, None]
    columns = _span(column, side, width)[:, None, None, :]
    return images.masked_fill(rows & columns, 0.0)


def _span(middle: Tensor, side: int, length: int) -> Tensor:
    """Return ``[N, length]``: which positions lie in the ``side`` ones around ``middle`` ``[N]``."""
    first = (middle - side // 2)[:, None]
    position = torch.arange(length, device=middle.device)
    return (position >= first) & (position < first + side)
