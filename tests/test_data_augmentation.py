"""Augmentation and batches against slow references, one image and one pixel at a time."""

import pytest
import torch
from torch import Tensor

from ftnas.configuration import validate
from ftnas.data import Augmentation, batches
from ftnas.data.augmentation import augment, crop, cut_out, draw_changes, mirror
from ftnas.errors import ConfigError, DataError
from ftnas.runtime import keyed_generator

COUNT, SHAPE = 40, (3, 6, 5)
EVERYTHING = Augmentation(crop_padding=2, flip=True, cutout=3)


@pytest.fixture
def images() -> Tensor:
    """Images without a zero, so that a zero is a padded or cut-out pixel."""
    return torch.rand(COUNT, *SHAPE, generator=torch.Generator().manual_seed(1)) + 1


def numbered(count: int) -> tuple[Tensor, Tensor]:
    """Images that carry their own number in every pixel, and that number as label."""
    numbers = torch.arange(count)
    return (numbers + 1.0)[:, None, None, None].expand(count, 1, 4, 4), numbers


def slow_crop(image: Tensor, top: int, left: int, padding: int) -> Tensor:
    result = torch.zeros_like(image)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            y, x = row + top - padding, column + left - padding
            if 0 <= y < height and 0 <= x < width:
                result[:, row, column] = image[:, y, x]
    return result


def slow_cut_out(image: Tensor, row: int, column: int, side: int) -> Tensor:
    result = image.clone()
    for y in range(row - side // 2, row - side // 2 + side):
        for x in range(column - side // 2, column - side // 2 + side):
            if 0 <= y < image.shape[1] and 0 <= x < image.shape[2]:
                result[:, y, x] = 0
    return result


@pytest.mark.parametrize("padding", [1, 2, 4])
def test_crop_equals_shifting_pixel_by_pixel(images: Tensor, padding: int) -> None:
    changes = draw_changes(COUNT, SHAPE, Augmentation(crop_padding=padding), keyed_generator("crop"))
    fast = crop(images, changes.top, changes.left, padding=padding)
    slow = [slow_crop(*each, padding) for each in zip(images, changes.top.tolist(), changes.left.tolist(), strict=True)]
    assert torch.equal(fast, torch.stack(slow))


def test_mirror_exchanges_left_and_right_of_the_marked_images_only(images: Tensor) -> None:
    marked = torch.arange(COUNT) % 3 == 0
    slow = [image.flip(2) if mark else image for image, mark in zip(images, marked, strict=True)]
    assert torch.equal(mirror(images, marked), torch.stack(slow))


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_cutout_equals_zeroing_pixel_by_pixel(images: Tensor, side: int) -> None:
    changes = draw_changes(COUNT, SHAPE, Augmentation(cutout=side), keyed_generator("cutout"))
    fast = cut_out(images, changes.hole_row, changes.hole_column, side=side)
    places = zip(images, changes.hole_row.tolist(), changes.hole_column.tolist(), strict=True)
    assert torch.equal(fast, torch.stack([slow_cut_out(*place, side) for place in places]))


def test_augmenting_a_batch_equals_augmenting_each_image_alone(images: Tensor) -> None:
    changes = draw_changes(COUNT, SHAPE, EVERYTHING, keyed_generator("alone"))
    alone = [augment(images[i : i + 1], changes.part(i, i + 1), EVERYTHING) for i in range(COUNT)]
    assert torch.equal(augment(images, changes, EVERYTHING), torch.cat(alone))


def test_augmentation_leaves_its_input_unchanged(images: Tensor) -> None:
    before = images.clone()
    augment(images, draw_changes(COUNT, SHAPE, EVERYTHING, keyed_generator("input")), EVERYTHING)
    assert torch.equal(images, before)


def test_nothing_changes_by_default(images: Tensor) -> None:
    changes = draw_changes(COUNT, SHAPE, Augmentation(), keyed_generator("default"))
    assert torch.equal(augment(images, changes, Augmentation()), images)


def test_every_offset_side_and_middle_is_drawn_equally_often() -> None:
    changes = draw_changes(90_000, (3, 6, 5), Augmentation(crop_padding=2, flip=True), keyed_generator("fair"))
    drawn = [(changes.top, 5), (changes.left, 5), (changes.hole_row, 6), (changes.hole_column, 5)]
    for values, options in [*drawn, (changes.mirrored.long(), 2)]:
        share = values.bincount(minlength=options) / len(values)
        # Six standard deviations of a share near 1/2 at n = 90,000.
        assert torch.allclose(share, torch.full((options,), 1 / options), atol=0.01)


def test_draws_of_different_kinds_are_independent() -> None:
    changes = draw_changes(50_000, (3, 6, 5), Augmentation(crop_padding=2, flip=True), keyed_generator("free"))
    kinds = (changes.top, changes.left, changes.mirrored, changes.hole_row, changes.hole_column)
    correlation = torch.corrcoef(torch.stack([kind.double() for kind in kinds]))
    assert (correlation - torch.eye(5)).abs().max() < 0.03


def test_switching_the_crop_on_leaves_flips_and_holes_as_they_were() -> None:
    plain = draw_changes(COUNT, SHAPE, Augmentation(flip=True), keyed_generator("same"))
    cropped = draw_changes(COUNT, SHAPE, Augmentation(flip=True, crop_padding=3), keyed_generator("same"))
    assert torch.equal(plain.mirrored, cropped.mirrored)
    assert torch.equal(plain.hole_row, cropped.hole_row)


def test_an_epoch_holds_every_image_at_most_once_with_its_own_label() -> None:
    images, labels = numbered(23)
    epoch = list(batches(images, labels, batch_size=5, augmentation=Augmentation(), key=("once",)))
    seen = torch.cat([y for _, y in epoch])
    assert len(seen.unique()) == len(seen) == 20
    assert all(torch.equal(x[:, 0, 0, 0], y + 1.0) for x, y in epoch)


def test_augmented_images_keep_their_label() -> None:
    images, labels = numbered(20)
    changed = Augmentation(crop_padding=1, flip=True, cutout=1)
    for x, y in batches(images, labels, batch_size=5, augmentation=changed, key=("label",)):
        assert torch.equal(x.amax((1, 2, 3)), y + 1.0)


def test_the_last_incomplete_batch_is_dropped() -> None:
    images, labels = numbered(23)
    epoch = batches(images, labels, batch_size=5, augmentation=Augmentation(), key=("last",))
    assert [len(y) for _, y in epoch] == [5, 5, 5, 5]


def test_one_batch_may_be_all_images() -> None:
    images, labels = numbered(5)
    assert len(list(batches(images, labels, batch_size=5, augmentation=Augmentation(), key=("all",)))) == 1


def test_the_same_key_gives_the_same_epoch_whatever_was_drawn_before(images: Tensor) -> None:
    def epoch() -> Tensor:
        labels = torch.arange(COUNT)
        drawn = batches(images, labels, batch_size=8, augmentation=EVERYTHING, key=("study", 3))
        return torch.cat([x for x, _ in drawn])

    first = epoch()
    torch.rand(7)
    assert torch.equal(first, epoch())


def test_another_epoch_has_another_order() -> None:
    images, labels = numbered(30)
    orders = [
        torch.cat([y for _, y in batches(images, labels, batch_size=5, augmentation=Augmentation(), key=(e,))])
        for e in range(2)
    ]
    assert not torch.equal(*orders)


def test_augmentation_does_not_change_the_order() -> None:
    images, labels = numbered(30)
    orders = [
        torch.cat([y for _, y in batches(images, labels, batch_size=5, augmentation=a, key=("order",))])
        for a in (Augmentation(), Augmentation(crop_padding=1, flip=True, cutout=2))
    ]
    assert torch.equal(*orders)


@pytest.mark.parametrize("batch_size", [0, -1, 24])
def test_a_batch_size_beyond_the_images_is_refused_before_the_first_batch(batch_size: int) -> None:
    images, labels = numbered(23)
    with pytest.raises(DataError, match=rf"^batch_size: 1\.\.23 for 23 images, got {batch_size}$"):
        batches(images, labels, batch_size=batch_size, augmentation=Augmentation(), key=("small",))


@pytest.mark.parametrize("key", ["crop_padding", "cutout"])
def test_an_augmentation_as_large_as_the_image_is_refused(key: str) -> None:
    images, labels = numbered(8)
    with pytest.raises(DataError, match=rf"^augmentation\.{key}: must be 0\.\.3 for images of 4x4, got 4$"):
        batches(images, labels, batch_size=4, augmentation=Augmentation(**{key: 4}), key=("large",))


def test_a_negative_augmentation_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="cutout"):
        validate(Augmentation, {"cutout": -1}, source="run.yaml")
