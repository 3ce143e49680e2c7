"""The user's own images: an ``.npz`` file with ``x_train``, ``y_train``, ``x_test`` and ``y_test``."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftnas.data.dataset import Images, Labels, Pixels
from ftnas.errors import DataError

KEYS = ("x_train", "y_train", "x_test", "y_test")
COLOURS = (1, 3, 4)  # channels of grey, RGB and RGBA images
# Packed images are some two to thirty times smaller; a file of zeros is a thousand times smaller.
PACKED, FREE = 200, 2**26

Arrays = dict[str, NDArray[Any]]


def read_npz(path: Path | None) -> Pixels:
    """Read images ``[N, H, W]`` or ``[N, C, H, W]``, uint8 or float, and integer labels ``[N]``, ``0..k-1``.

    Raises:
        DataError: the file, a key, a shape or a label is wrong.
    """
    if path is None:
        raise DataError(f"npz: needs a file (--data-dir FILE.npz) with {', '.join(KEYS)}")
    arrays = _load(path)
    train_images, train_labels = _part(arrays, "train", path)
    test_images, test_labels = _part(arrays, "test", path)
    if train_images.shape[1:] != test_images.shape[1:]:
        sizes = f"{list(train_images.shape[1:])} and {list(test_images.shape[1:])}"
        raise DataError(f"{path}: x_train and x_test must hold images of one shape [C, H, W], found {sizes}")
    classes = _classes(train_labels, test_labels, path)
    return Pixels(train_images, train_labels, test_images, test_labels, classes)


def _load(path: Path) -> Arrays:
    """Return the four arrays; nothing in the file is unpickled."""
    try:
        _check_kind(path)
        # Opened here: of a file that is no archive NumPy would not close its own.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            _check_sizes(archive.zip, path)
            missing = [key for key in KEYS if key not in archive.files]
            if missing:
                found = ", ".join(archive.files)[:120] or "nothing"
                raise DataError(f"{path}: keys {', '.join(missing)} are missing, found {found}")
            return {key: _array(archive, key) for key in KEYS}
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or _one_line(error)})") from None
    except Exception as error:  # NumPy takes headers apart with Python's tokenizer, and zip files may be packed anyhow
        raise DataError(f"{path}: is truncated or holds other than numbers ({_one_line(error)})") from None


def _check_kind(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is not a file")
    if path.exists() and not zipfile.is_zipfile(path):
        raise DataError(f"{path}: is truncated or not an .npz file")


def _check_sizes(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse what is packed so well that it holds next to nothing, but would fill the memory."""
    unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > FREE + PACKED * path.stat().st_size:
        raise DataError(f"{path}: unpacks to {unpacked} bytes, more than {PACKED} times its size, as no images do")


def _array(archive: Any, key: str) -> NDArray[Any]:
    array = archive[key]
    if not isinstance(array, np.ndarray):  # NumPy hands out the raw bytes of a member that is no array
        raise ValueError(f"{key} is no array")
    return array


def _part(arrays: Arrays, part: str, path: Path) -> tuple[Images, Labels]:
    """Return the checked images ``[N, C, H, W]`` and labels ``[N]`` of ``train`` or ``test``."""
    images = _images(arrays[f"x_{part}"], f"{path}: x_{part}")
    labels = _labels(arrays[f"y_{part}"], f"{path}: y_{part}")
    if len(images) != len(labels):
        raise DataError(f"{path}: {len(images)} images in x_{part}, {len(labels)} labels in y_{part}")
    return images, labels


def _images(images: NDArray[Any], place: str) -> Images:
    shape = list(images.shape)
    if images.dtype != np.uint8 and (images.dtype.kind != "f" or images.dtype.itemsize > 8):
        raise DataError(f"{place} must be uint8 or float (16, 32 or 64 bits), found {images.dtype}")
    if images.ndim not in (3, 4) or 0 in shape:
        raise DataError(f"{place} must be [N, H, W] or [N, C, H, W] and not empty, found shape {shape}")
    if images.ndim == 4 and shape[3] in COLOURS and shape[1] not in COLOURS:
        raise DataError(f"{place} must be [N, C, H, W], found shape {shape}, which has its channels last")
    if not np.isfinite(images).all():
        raise DataError(f"{place} must be finite, found NaN or infinity")
    return images if images.ndim == 4 else images[:, None]


def _labels(labels: NDArray[Any], place: str) -> Labels:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(f"{place} must be integers [N], found {labels.dtype} {list(labels.shape)}")
    return labels.astype(np.int64)


def _classes(train: Labels, test: Labels, path: Path) -> int:
    """Return the number of classes; the training labels are all of ``0..k-1``, the test labels some."""
    found = np.unique(train)
    classes = len(found)
    if classes < 2 or found[0] != 0 or found[-1] != classes - 1:
        listed = ", ".join(map(str, found[:12])) + (", ..." if classes > 12 else "")
        raise DataError(f"{path}: y_train must hold every label of 0..k-1, two or more, found {listed}")
    if test.min() < 0 or test.max() >= classes:
        outside = f"{test.min()}..{test.max()}"
        raise DataError(f"{path}: y_test must be in 0..{classes - 1}, as y_train is, found {outside}")
    return classes


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
