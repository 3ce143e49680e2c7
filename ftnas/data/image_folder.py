"""The user's own images as files: a folder of folders, one for each class, read with Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ftnas.data.dataset import Pixels
from ftnas.errors import DataError
from ftnas.runtime import keyed_generator

PARTS = ("train", "test")
TRAIN_SHARE = 0.8
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Pillow's names of these formats. It would find others by their content, and run Ghostscript for one of them.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
PIXELS = 2**24  # of an image, at most
PACKED, FREE = 200, 2**26  # as for npz: how many times its files all pixels may be, above so many bytes
# What Pillow calls images of one channel and of three; palettes become colours.
GREY, COLOUR = ("1", "L"), ("P", "RGB")

Classes = dict[str, list[Path]]


def read_image_folder(path: Path | None) -> Pixels:
    """Read ``DIR/train/CLASS/*.png`` and ``DIR/test/CLASS/*.png``, or ``DIR/CLASS/*.png``.

    A folder without ``train`` and ``test`` is split: of each class four fifths train, always the same ones. Classes are
    numbered in the order of their names. All images have one size, and all one channel or all three, 8 bits each.
    Files and folders whose names begin with a dot are left out.

    Raises:
        DataError: the folder, a class, a file or its size is wrong.
    """
    if path is None:
        raise DataError(f"folder: needs a folder of images by class (--data-dir DIR with {_layouts()})")
    if not path.is_dir():
        raise DataError(f"{path}: is not a folder; folder reads {_layouts()}")
    found = {part: path / part for part in PARTS if (path / part).is_dir()}
    if len(found) == 1:
        have, lack = (*found, *(part for part in PARTS if part not in found))
        raise DataError(f"{path}: has a folder {have} but no folder {lack}; allowed are {_layouts()}")
    return _two_parts(path, _classes(found["train"]), _classes(found["test"])) if found else _split(path)


def _layouts() -> str:
    return "train/CLASS/*.png and test/CLASS/*.png, or CLASS/*.png"


def _classes(path: Path) -> Classes:
    """Return the image files of each class below ``path``, in the order of their names."""
    folders = [entry for entry in _entries(path) if entry.is_dir()]
    classes = {folder.name: _files(folder) for folder in folders}
    empty = [name for name, files in classes.items() if not files]
    if empty:
        raise DataError(f"{path / empty[0]}: holds no images; allowed are {', '.join(ENDINGS)}")
    if len(classes) < 2:
        names = f"only the class {', '.join(classes)}" if classes else "no folders of classes"
        raise DataError(f"{path}: has {names}; needed are two or more ({_layouts()})")
    return classes


def _files(folder: Path) -> list[Path]:
    files = _entries(folder)
    strange = [file for file in files if file.suffix.lower() not in ENDINGS or not file.is_file()]
    if strange:
        raise DataError(f"{strange[0]}: is not an image; allowed are {', '.join(ENDINGS)}")
    return files


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None


def _two_parts(path: Path, train: Classes, test: Classes) -> Pixels:
    unknown = [name for name in test if name not in train]
    if unknown:
        raise DataError(f"{path / 'test' / unknown[0]}: is a class without training images in {path / 'train'}")
    names = list(train)
    return _pixels(_labelled(train, names), _labelled(test, names), len(names))


def _split(path: Path) -> Pixels:
    classes = _classes(path)
    few = [name for name, files in classes.items() if len(files) < 2]
    if few:
        raise DataError(f"{path / few[0]}: has one image; needed are two or more, to train and to test with")
    parts: tuple[Classes, Classes] = {}, {}
    for name, files in classes.items():
        order = torch.randperm(len(files), generator=keyed_generator("folder", "test split", name)).tolist()
        count = min(max(round(TRAIN_SHARE * len(files)), 1), len(files) - 1)
        for part, chosen in zip(parts, (order[:count], order[count:]), strict=True):
            part[name] = [files[index] for index in chosen]
    train, test = (_labelled(part, list(classes)) for part in parts)
    return _pixels(train, test, len(classes))


def _labelled(classes: Classes, names: Sequence[str]) -> list[tuple[Path, int]]:
    """Return the files of ``classes`` with their labels, shuffled, so that the first of them are of all classes."""
    found = [(file, names.index(name)) for name, files in classes.items() for file in files]
    order = torch.randperm(len(found), generator=keyed_generator("folder", "order")).tolist()
    return [found[index] for index in order]


def _pixels(train: Sequence[tuple[Path, int]], test: Sequence[tuple[Path, int]], classes: int) -> Pixels:
    """Read all images, which must have the shape of one of them."""
    like = train[0][0]
    shape = _image(like).shape
    _check_sizes([file for part in (train, test) for file, _ in part], like, shape)
    images, labels = [], []
    for part in (train, test):
        pixels = np.empty((len(part), *shape), np.uint8)
        for index, (file, _) in enumerate(part):
            found = _image(file)
            if found.shape != shape:
                raise DataError(f"{file}: is {_size(found.shape)}; all must be as {like}, {_size(shape)}")
            pixels[index] = found
        images.append(pixels)
        labels.append(np.array([label for _, label in part], np.int64))
    return Pixels(images[0], labels[0], images[1], labels[1], classes)


def _check_sizes(files: Sequence[Path], like: Path, shape: tuple[int, ...]) -> None:
    """Refuse images that are packed so well that they hold next to nothing, but would fill the memory."""
    pixels, packed = len(files) * math.prod(shape), sum(file.stat().st_size for file in files)
    if pixels > FREE + PACKED * packed:
        raise DataError(
            f"{like}: {len(files)} images as this one, {_size(shape)}, unpack to more than {PACKED} times their files"
        )


def _image(file: Path) -> NDArray[np.uint8]:
    """Return one image ``[C, H, W]``."""
    from PIL import Image  # only this data set needs it

    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > PIXELS:
                raise DataError(f"{file}: is {image.width}x{image.height}; images of up to {PIXELS} pixels are read")
            if image.mode not in (*GREY, *COLOUR):
                raise DataError(f"{file}: is an image of mode {image.mode}; allowed are {', '.join((*GREY, *COLOUR))}")
            pixels = np.asarray(image.convert("L" if image.mode in GREY else "RGB"), np.uint8)
    except DataError:
        raise
    except Exception as error:  # its readers of old formats say whatever Python says
        what = " ".join(str(error).split())[:120]
        raise DataError(f"{file}: is not a whole image ({what or type(error).__name__})") from None
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}x{height} with {channels} channel{'s' if channels > 1 else ''}"
