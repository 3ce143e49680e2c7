"""Digits, npz files, normalisation and splits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftnas.data import Dataset, load_data, split_train
from ftnas.data.dataset import channel_statistics
from ftnas.data.splitting import draw_stratified
from ftnas.errors import DataError

FIRST_TEST_LABELS = [4, 2, 5, 6, 4, 0, 9, 8, 7, 4, 9, 3]
RNG = np.random.default_rng(1)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """The bundled digits."""
    return load_data("digits")


def arrays(**changes: Any) -> dict[str, Any]:
    """The arrays of a good npz file of three classes, with ``changes``; ``None`` takes a key away."""
    good = {
        "x_train": RNG.integers(0, 256, (30, 3, 6, 5), dtype=np.uint8),
        "y_train": np.arange(30) % 3,
        "x_test": RNG.integers(0, 256, (7, 3, 6, 5), dtype=np.uint8),
        "y_test": np.arange(7) % 3,
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


def saved(folder: Path, **changes: Any) -> Path:
    """Write such a file."""
    np.savez(folder / "own.npz", **arrays(**changes))
    return folder / "own.npz"


def test_digits_are_1200_training_and_597_test_images_of_8x8(digits: Dataset) -> None:
    assert digits.train_images.shape == (1200, 1, 8, 8)
    assert digits.test_images.shape == (597, 1, 8, 8)
    assert digits.image_shape == (1, 8, 8)
    assert digits.classes == 10


def test_the_parts_of_the_digits_hold_every_class_in_proportion(digits: Dataset) -> None:
    train, test = digits.train_labels.bincount(), digits.test_labels.bincount()
    assert ((train - (train + test) * 1200 / 1797).abs() < 1).all()


def test_the_digits_split_is_a_constant(digits: Dataset) -> None:
    assert digits.test_labels[:12].tolist() == FIRST_TEST_LABELS
    assert torch.equal(load_data("digits").train_images, digits.train_images)


def test_no_digit_is_in_both_parts(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    together = torch.cat([digits.train_images, digits.test_images]).flatten(1)
    everything = torch.from_numpy(load_digits().data).float()
    ours = torch.unique(_ranked(together), dim=0, return_counts=True)[1]
    theirs = torch.unique(_ranked(everything), dim=0, return_counts=True)[1]
    assert torch.equal(ours, theirs)


def _ranked(rows: torch.Tensor) -> torch.Tensor:
    """Return grey levels as 0..16, whatever their scale."""
    levels = rows.unique()
    return torch.bucketize(rows, (levels[:-1] + levels[1:]) / 2)


def test_digits_refuse_a_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^digits: comes with scikit-learn and takes no directory, got "):
        load_data("digits", directory=tmp_path)


def test_an_unknown_data_set_is_named_with_the_known_ones() -> None:
    message = "^data: unknown data set 'mnist'; choose from digits, cifar10, npz, folder$"
    with pytest.raises(DataError, match=message):
        load_data("mnist")


def test_training_images_have_mean_zero_and_deviation_one_per_channel(tmp_path: Path) -> None:
    images = load_data("npz", directory=saved(tmp_path)).train_images.double()
    deviation, mean = torch.std_mean(images, dim=(0, 2, 3), correction=0)
    assert torch.allclose(mean, torch.zeros(3, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(deviation, torch.ones(3, dtype=torch.float64), atol=1e-6)


def test_test_images_are_scaled_by_the_training_images(tmp_path: Path) -> None:
    content = arrays()
    dataset = load_data("npz", directory=saved(tmp_path, **content))
    mean = content["x_train"].mean(axis=(0, 2, 3), keepdims=True)
    deviation = content["x_train"].std(axis=(0, 2, 3), keepdims=True)
    expected = torch.from_numpy((content["x_test"] - mean) / deviation).float()
    assert torch.allclose(dataset.test_images, expected, atol=1e-5)


def test_statistics_over_several_chunks_equal_those_at_once() -> None:
    images = RNG.normal(3, 2, (4500, 2, 3, 2))
    mean, deviation = channel_statistics(images)
    assert np.allclose(mean, images.mean(axis=(0, 2, 3)))
    assert np.allclose(deviation, images.std(axis=(0, 2, 3)))


def test_a_channel_that_never_varies_becomes_zero(tmp_path: Path) -> None:
    content = arrays()
    content["x_train"][:, 1] = 9
    dataset = load_data("npz", directory=saved(tmp_path, **content))
    assert (dataset.train_images[:, 1] == 0).all()
    assert dataset.test_images.isfinite().all()


@pytest.mark.parametrize("kind", ["uint8", "float16", "float32", "float64", ">f4"])
def test_images_of_every_allowed_type_become_float32(tmp_path: Path, kind: str) -> None:
    content = arrays()
    changes = {key: content[key].astype(kind) for key in ("x_train", "x_test")}
    reference = load_data("npz", directory=saved(tmp_path, **content))
    dataset = load_data("npz", directory=saved(tmp_path, **content | changes))
    assert dataset.train_images.dtype == torch.float32
    assert torch.allclose(dataset.train_images, reference.train_images, atol=1e-5)


def test_grey_images_get_a_channel(tmp_path: Path) -> None:
    grey = {key: arrays()[key][:, 0] for key in ("x_train", "x_test")}
    assert load_data("npz", directory=saved(tmp_path, **grey)).image_shape == (1, 6, 5)


def test_labels_are_int64_and_count_the_classes(tmp_path: Path) -> None:
    dataset = load_data("npz", directory=saved(tmp_path, y_train=(np.arange(30) % 3).astype(np.uint8)))
    assert dataset.train_labels.dtype == dataset.test_labels.dtype == torch.int64
    assert dataset.classes == 3


def test_a_data_set_moves_as_a_whole(tmp_path: Path) -> None:
    moved = load_data("npz", directory=saved(tmp_path)).to("meta")
    tensors = (moved.train_images, moved.train_labels, moved.test_images, moved.test_labels)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


FLOAT_NAN = np.full((30, 3, 6, 5), np.nan)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "missing key": ({"x_test": None}, "keys x_test are missing, found x_train, y_train, y_test"),
    "integer images": ({"x_train": np.zeros((30, 3, 6, 5), int)}, "x_train must be uint8 or float"),
    "flat images": ({"x_train": np.zeros((30, 90))}, "x_train must be .* found shape \\[30, 90\\]"),
    "no images": ({"x_test": np.zeros((0, 3, 6, 5))}, "x_test must be .* and not empty"),
    "channels last": ({"x_train": np.zeros((30, 6, 5, 3))}, "x_train must be .* has its channels last"),
    "not a number": ({"x_train": FLOAT_NAN}, "x_train must be finite, found NaN or infinity"),
    "other size": ({"x_test": np.zeros((7, 3, 6, 6))}, r"one shape \[C, H, W\], found \[3, 6, 5\] and \[3, 6, 6\]"),
    "float labels": ({"y_train": np.zeros(30)}, r"y_train must be integers \[N\], found float64 \[30\]"),
    "label column": ({"y_test": np.zeros((7, 1), int)}, r"y_test must be integers \[N\], found int64 \[7, 1\]"),
    "label count": ({"y_train": np.arange(29) % 3}, "30 images in x_train, 29 labels in y_train"),
    "from one": ({"y_train": np.arange(30) % 3 + 1}, r"y_train must hold every label of 0\.\.k-1.* found 1, 2, 3$"),
    "gap": ({"y_train": np.arange(30) % 2 * 2}, "y_train must hold every label .* found 0, 2$"),
    "one class": ({"y_train": np.zeros(30, int)}, "two or more, found 0$"),
    "unknown test label": ({"y_test": np.full(7, 3)}, r"y_test must be in 0\.\.2, as y_train is, found 3\.\.3"),
    "objects": ({"y_train": np.array([{}] * 30)}, "is truncated or holds other than numbers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_npz_is_one_line_that_names_file_and_reason(tmp_path: Path, case: str) -> None:
    changes, reason = WRONG[case]
    path = saved(tmp_path, **changes)
    with pytest.raises(DataError, match=reason) as caught:
        load_data("npz", directory=path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_truncated_npz_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"own\.npz: is truncated or not an \.npz file"):
        load_data("npz", directory=path)


def test_a_damaged_npz_member_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[1000] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"own\.npz: is truncated or holds other than numbers"):
        load_data("npz", directory=path)


def test_a_missing_npz_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz: cannot be read \(No such file or directory\)"):
        load_data("npz", directory=tmp_path / "none.npz")


def test_npz_needs_a_file() -> None:
    with pytest.raises(DataError, match=r"^npz: needs a file"):
        load_data("npz")


def test_a_split_has_every_training_image_once(digits: Dataset) -> None:
    (a, _), (b, _) = split_train(digits, 0.5, 1)
    together = torch.cat([a, b]).flatten(1)
    order = [sorted(map(tuple, rows.tolist())) for rows in (together, digits.train_images.flatten(1))]
    assert order[0] == order[1]


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8])
def test_both_parts_of_a_split_keep_every_classs_share(digits: Dataset, fraction: float) -> None:
    (_, a), (_, b) = split_train(digits, fraction, 1)
    assert len(a) == round(1200 * fraction)
    assert ((a.bincount() - digits.train_labels.bincount() * fraction).abs() <= 1).all()
    assert len(a) + len(b) == 1200


def test_images_keep_their_label_in_a_split(digits: Dataset) -> None:
    (images, labels), _ = split_train(digits, 0.1, 1)
    for image, label in zip(images, labels, strict=True):
        same = (digits.train_images == image).all(dim=(1, 2, 3))
        assert label in digits.train_labels[same]


@pytest.mark.parametrize("part", [0, 1])
def test_the_first_images_of_a_part_are_a_fair_sample_of_the_classes(digits: Dataset, part: int) -> None:
    counts = sum(split_train(digits, 0.5, seed)[part][1][:50].bincount(minlength=10) for seed in range(60))
    # About 300 of each class are expected in 3,000 draws, standard deviation 16.
    assert ((counts - 300).abs() < 80).all()


def test_a_split_depends_on_the_seed_alone(digits: Dataset) -> None:
    first, again, other = (split_train(digits, 0.5, seed)[0][0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 1e-6, float("nan")])
def test_a_split_with_an_empty_part_is_refused(digits: Dataset, fraction: float) -> None:
    with pytest.raises(DataError, match="both parts need some, got fraction"):
        split_train(digits, fraction, 1)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 60), st.integers(0, 9))
def test_a_stratified_draw_is_exact_for_any_labels(labels: list[int], count: int, seed: int) -> None:
    values, count = torch.tensor(labels), min(count, len(labels))
    chosen, rest = draw_stratified(values, count, torch.Generator().manual_seed(seed))
    assert len(chosen) == count
    assert sorted(chosen.tolist() + rest.tolist()) == list(range(len(labels)))
    exact = values.bincount() * count / len(labels)
    assert ((values[chosen].bincount(minlength=len(exact)) - exact).abs() < 1).all()


def test_digits_are_scikit_learns_whether_it_is_imported_or_its_file_is_read(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftnas.data.digits.FILE", "datasets/data/moved")
    imported = load_data("digits")
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(imported, name), getattr(digits, name))
