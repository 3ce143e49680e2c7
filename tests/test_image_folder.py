"""Own images: a folder of images by class, in two parts or split always alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ftnas.data import load_data
from ftnas.data.image_folder import read_image_folder
from ftnas.errors import DataError


def put(file: Path, *, size: tuple[int, int] = (6, 4), mode: str = "L", value: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    colour: int | tuple[int, ...] = value if mode in ("L", "1", "I") else (value,) * len(mode)
    Image.new(mode, size, colour).save(file)
    return file


def folder(root: Path, *, per_class: int = 5, mode: str = "L") -> Path:
    """Write three classes of images whose pixels are ten times the class plus the image's number."""
    for label, name in enumerate(("ant", "bee", "cat")):
        for number in range(per_class):
            put(root / name / f"{number}.png", mode=mode, value=10 * label + number)
    return root


def parts(root: Path, *, mode: str = "L") -> Path:
    folder(root / "train", mode=mode)
    folder(root / "test", per_class=2, mode=mode)
    return root


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_two_parts_are_read_with_classes_in_the_order_of_their_names(mode: str, channels: int, tmp_path: Path) -> None:
    found = read_image_folder(parts(tmp_path, mode=mode))
    assert found.train_images.shape == (15, channels, 4, 6)
    assert found.test_images.shape == (6, channels, 4, 6)
    assert found.classes == 3
    for images, labels in ((found.train_images, found.train_labels), (found.test_images, found.test_labels)):
        assert (images[:, 0, 0, 0] // 10 == labels).all()
    assert set(found.train_labels[:6]) == {0, 1, 2}, "the first images are of all classes, for calibration"


def test_a_test_part_may_lack_a_class_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    root = parts(tmp_path)
    shutil.rmtree(root / "test" / "ant")
    (root / "train" / ".DS_Store").write_text("x")
    (root / "train" / "bee" / ".thumbs").write_text("x")
    found = read_image_folder(root)
    assert (found.classes, sorted(set(found.test_labels))) == (3, [1, 2])


@settings(max_examples=20)
@given(counts=st.lists(st.integers(2, 12), min_size=2, max_size=4))
def test_a_folder_without_parts_is_split_in_every_class_and_always_alike(
    counts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("images")
    for label, count in enumerate(counts):
        for number in range(count):
            put(root / f"class{label}" / f"{number:02}.png", value=20 * label + number)
    first, second = read_image_folder(root), read_image_folder(root)
    assert np.array_equal(first.train_images, second.train_images)
    trained, tested = np.bincount(first.train_labels), np.bincount(first.test_labels)
    assert (trained + tested).tolist() == counts
    assert all(abs(a - 0.8 * (a + b)) <= 0.8 for a, b in zip(trained, tested, strict=True))
    everything = np.concatenate([first.train_images, first.test_images])[:, 0, 0, 0]
    assert len(set(everything.tolist())) == sum(counts), "no image is in both parts"


def test_a_split_of_one_class_does_not_depend_on_the_others(tmp_path: Path) -> None:
    first = read_image_folder(folder(tmp_path / "first"))
    put(tmp_path / "first" / "dog" / "1.png", value=200)
    put(tmp_path / "first" / "dog" / "2.png", value=201)
    second = read_image_folder(tmp_path / "first")
    old = {int(image[0, 0, 0]) for image in first.test_images}
    assert old == {int(image[0, 0, 0]) for image in second.test_images} - {200, 201}


def test_it_is_a_data_set_by_name(tmp_path: Path) -> None:
    data = load_data("folder", directory=folder(tmp_path))
    assert (data.name, data.image_shape, data.classes) == ("folder", (1, 4, 6), 3)
    assert abs(float(data.train_images.mean())) < 1e-5


def spoiled(change: Callable[[Path], object]) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        change(folder(root))
        return root

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: root / "nowhere", ["nowhere: is not a folder", "train/CLASS/*.png"]),
        (lambda root: root, ["has no folders of classes; needed are two or more"]),
        (lambda root: put(root / "ant" / "1.png").parents[1], ["has only the class ant", "two or more"]),
        (lambda root: put(root / "train" / "ant" / "1.png").parents[2], ["has a folder train but no folder test"]),
        (spoiled(lambda root: put(root / "dog" / "1.png")), ["dog: has one image"]),
        (spoiled(lambda root: (root / "dog").mkdir()), ["dog: holds no images"]),
        (spoiled(lambda root: (root / "bee" / "notes.txt").write_text("x")), ["notes.txt: is not an image", ".png"]),
        (spoiled(lambda root: (root / "bee" / "9.png").write_bytes(b"x" * 99)), ["9.png: is not a whole image"]),
        (spoiled(lambda root: put(root / "bee" / "9.png", size=(6, 5))), ["9.png: is 6x5 with 1 channel", "6x4 with"]),
        (spoiled(lambda root: put(root / "bee" / "9.png", mode="RGB")), ["3 channels; all must be", "1 channel"]),
        (spoiled(lambda root: put(root / "bee" / "9.png", mode="RGBA")), ["of mode RGBA; allowed are 1, L, P, RGB"]),
    ],
)
def test_a_folder_that_cannot_be_read_is_told_in_one_line(
    make: Callable[[Path], Path], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(DataError) as refusal:
        read_image_folder(make(tmp_path))
    line = str(refusal.value)
    assert "\n" not in line
    assert [word for word in words if word not in line] == []


def test_a_class_that_only_the_test_part_has_is_named(tmp_path: Path) -> None:
    root = parts(tmp_path)
    put(root / "test" / "dog" / "1.png")
    with pytest.raises(DataError, match="dog: is a class without training images"):
        read_image_folder(root)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    file = folder(tmp_path) / "cat" / "0.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (4, 6), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"0\.png: is not a whole image"):
        read_image_folder(tmp_path)


def test_the_folder_has_to_be_given() -> None:
    with pytest.raises(DataError, match="folder: needs a folder of images by class"):
        read_image_folder(None)
