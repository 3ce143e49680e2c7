"""Faults listed one by one: exactly these, of weights and of outputs, or a line that says which cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from faulty_net import IMAGES, Net, batches_of, some_images, trained_net
from slow_faults import as_code
from torch import Tensor

from ftnas.errors import FaultError
from ftnas.faults import Flip, Plan, draw_plan, explicit_plan, inject, load_plan, output_shapes, save_plan
from ftnas.quantization import FixedPoint, Number, Quantization

SHAPES = {"stem.output": (8, 8, 8), "body.output": (8, 8, 8), "sum.output": (8, 8, 8), "head.output": (10,)}
KINDS = ("flip", "stuck_at_0", "stuck_at_1")


@pytest.fixture(scope="module")
def net() -> Net:
    return trained_net()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return some_images()


def codes_of(weight: Tensor, number: Number) -> list[int]:
    codes: list[int] = number.encode(weight.detach()).flatten().tolist()
    return codes


def faulty_codes(net: Net, flips: Sequence[Flip]) -> list[int]:
    """Return the codes of the stem's weight that a pass computes with."""
    number = net.stem.weight_number(net.stem.weight)
    with inject(net, explicit_plan(net, flips)) as injection:
        return codes_of(injection.weight(net.stem, number.decode(number.encode(net.stem.weight)), number), number)


def after(code: int, flip: Flip) -> int:
    """Return ``code`` of eight bits after ``flip``."""
    kept = code & ~(1 << flip.bit)
    new = {"flip": ~code & (1 << flip.bit), "stuck_at_0": 0, "stuck_at_1": 1 << flip.bit}[flip.kind]
    return as_code(kept | new, FixedPoint(8, 1.0))


def some_flips(count: int, site: str, values: int, images: int = 1) -> list[Flip]:
    """Return distinct faults of every kind."""
    generator = np.random.default_rng(0)
    chosen = generator.choice(images * values * 8, count, replace=False)
    places = [(int(place) // (8 * values), int(place) // 8 % values, int(place) % 8) for place in chosen]
    return [Flip(site, element, bit, KINDS[i % 3], image) for i, (image, element, bit) in enumerate(places)]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bit", range(8))
def test_one_listed_bit_of_a_weight_changes_and_no_other(kind: str, bit: int, net: Net) -> None:
    flip = Flip("stem.weight", 77, bit, kind)  # type: ignore[arg-type]
    expected = codes_of(net.stem.weight, net.stem.weight_number(net.stem.weight))
    expected[77] = after(expected[77], flip)
    assert faulty_codes(net, [flip]) == expected


def test_many_listed_bits_change_as_one_after_the_other_would(net: Net) -> None:
    flips = some_flips(600, "stem.weight", 216)
    expected = codes_of(net.stem.weight, net.stem.weight_number(net.stem.weight))
    for flip in flips:
        expected[flip.element] = after(expected[flip.element], flip)
    assert faulty_codes(net, flips) == expected


def test_the_order_of_the_list_does_not_matter(net: Net) -> None:
    flips = some_flips(300, "stem.weight", 216)
    assert explicit_plan(net, flips) == explicit_plan(net, flips[::-1])


@pytest.mark.parametrize("size", [IMAGES, 64, 7])
def test_listed_bits_of_outputs_change_in_their_image_whatever_the_batches(net: Net, size: int) -> None:
    values = torch.randint(-128, 128, (IMAGES, 8, 8, 8), generator=torch.Generator().manual_seed(3)) * 0.5
    number, flips = FixedPoint(8, 0.5), some_flips(2000, "stem.output", 512, IMAGES)
    expected = number.encode(values).view(IMAGES, -1).tolist()
    for flip in flips:
        expected[flip.image][flip.element] = after(expected[flip.image][flip.element], flip)
    with inject(net, explicit_plan(net, flips, shapes=SHAPES, images=IMAGES)) as injection:
        for batch in batches_of(size):
            injection.first_image = batch.start
            injection.output(net.stem, values[batch.start : batch.stop], number)
    assert number.encode(values).view(IMAGES, -1).tolist() == expected


def test_weights_and_outputs_may_be_listed_together(net: Net, images: Tensor) -> None:
    weight, output = Flip("head.weight", 3, 7), Flip("head.output", 4, 7, image=11)
    clean = net(images)

    def changed(*flips: Flip) -> list[int]:
        with inject(net, explicit_plan(net, flips, shapes=SHAPES, images=IMAGES)):
            return ((net(images) != clean).any(1)).nonzero().flatten().tolist()

    assert changed(output) == [11]
    assert len(changed(weight)) > 1
    assert set(changed(weight, output)) == {*changed(weight), 11}


def test_faults_of_weights_alone_need_no_shapes_whatever_runs(net: Net, images: Tensor) -> None:
    flips = [Flip("stem.weight", 0, 7)]
    with inject(net, explicit_plan(net, flips, images=IMAGES)):
        one = net(images)
    with inject(net, explicit_plan(net, flips)):
        assert torch.equal(net(images), one)


def test_an_output_beyond_the_first_batch_fails_only_there(net: Net, images: Tensor) -> None:
    plan = explicit_plan(net, [Flip("head.output", 0, 6, image=100)], shapes=SHAPES, images=IMAGES)
    clean = net(images)
    with inject(net, plan) as injection:
        assert torch.equal(net(images[:100]), clean[:100])
        injection.first_image = 100
        assert not torch.equal(net(images[100:]), clean[100:])


def test_ten_thousand_faults_are_listed_injected_and_counted(net: Net, images: Tensor) -> None:
    flips = some_flips(1500, "stem.weight", 216) + some_flips(8500, "body.output", 512, IMAGES)
    with inject(net, explicit_plan(net, flips, shapes=output_shapes(net, images[:2]), images=IMAGES)) as injection:
        net(images)
    assert sum(count.applied for count in injection.counts.values()) == 10_000
    assert injection.counts["body.output"].effective > 4000


def test_an_empty_list_changes_nothing(net: Net, images: Tensor) -> None:
    clean = net(images)
    with inject(net, explicit_plan(net, [])) as injection:
        assert torch.equal(net(images), clean)
    assert {count.planned for count in injection.counts.values()} == {0}


def test_a_listed_plan_survives_its_file_and_replays(net: Net, images: Tensor, tmp_path: Path) -> None:
    flips = some_flips(100, "body.weight", 288) + some_flips(500, "sum.output", 512, IMAGES)
    plan = explicit_plan(net, flips, shapes=SHAPES, images=IMAGES)
    save_plan(plan, tmp_path / "plan")
    loaded = load_plan(tmp_path / "plan", net)
    assert loaded == plan
    with inject(net, plan):
        expected = net(images)
    with inject(net, loaded):
        assert torch.equal(net(images), expected)


def test_the_bits_of_float_words_may_be_listed(images: Tensor) -> None:
    torch.manual_seed(0)
    model = Net((Quantization(word="float32"),))
    model(images)
    model.eval()
    number = model.stem.weight_number(model.stem.weight)
    with inject(model, explicit_plan(model, [Flip("stem.weight", 5, 31)])) as injection:
        faulty = injection.weight(model.stem, model.stem.weight.detach(), number)
    expected = model.stem.weight.detach().clone()
    expected.view(-1)[5] *= -1
    assert torch.equal(faulty, expected)


# What cannot be


@pytest.mark.parametrize(
    ("flip", "said"),
    [
        (Flip("stems.weight", 0, 0), "no fault site is called 'stems.weight'; the first is stem.weight"),
        (Flip("stem.weight", 216, 0), "stem.weight: element must be a whole number from 0 to 215, got 216"),
        (Flip("stem.weight", -1, 0), "stem.weight: element must be a whole number from 0 to 215, got -1"),
        (Flip("stem.weight", 1.5, 0), "stem.weight: element must be a whole number from 0 to 215, got 1.5"),  # type: ignore[arg-type]
        (Flip("stem.weight", 0, 8), "stem.weight: bit must be a whole number from 0 to 7, got 8"),
        (Flip("stem.weight", 0, -1), "stem.weight: bit must be a whole number from 0 to 7, got -1"),
        (Flip("stem.weight", 0, 0, image=1), "stem.weight: image must be a whole number from 0 to 0, got 1"),
        (Flip("head.output", 10, 0), "head.output: element must be a whole number from 0 to 9, got 10"),
        (Flip("head.output", 0, 9), "head.output: bit must be a whole number from 0 to 7, got 9"),
        (Flip("head.output", 0, 0, image=150), "head.output: image must be a whole number from 0 to 149, got 150"),
        (Flip("stem.weight", 0, 0, "burn"), "kind must be one of flip, stuck_at_0, stuck_at_1, got 'burn'"),  # type: ignore[arg-type]
    ],
)
def test_a_fault_that_cannot_be_is_one_line_that_names_it(flip: Flip, said: str, net: Net) -> None:
    with pytest.raises(FaultError) as error:
        explicit_plan(net, [Flip("stem.weight", 0, 0), flip], shapes=SHAPES, images=IMAGES)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bit_that_is_listed_twice_is_refused(kind: str, net: Net) -> None:
    twice = [Flip("stem.weight", 3, 2), Flip("stem.weight", 3, 1), Flip("stem.weight", 3, 2, kind)]  # type: ignore[arg-type]
    with pytest.raises(FaultError, match=r"stem\.weight: element 3, bit 2, image 0 is listed twice"):
        explicit_plan(net, twice)


def test_outputs_without_shapes_are_refused(net: Net) -> None:
    with pytest.raises(FaultError, match=r"stem\.output: its shape is known only after a forward pass"):
        explicit_plan(net, [Flip("stem.output", 0, 0)], images=IMAGES)


def test_outputs_without_images_are_refused(net: Net) -> None:
    with pytest.raises(FaultError, match=r"stem\.output: faults of outputs need images"):
        explicit_plan(net, [Flip("stem.output", 0, 0)], shapes=SHAPES)


def test_images_beyond_the_listed_ones_are_refused(net: Net, images: Tensor) -> None:
    plan = explicit_plan(net, [Flip("stem.output", 0, 0)], shapes=SHAPES, images=10)
    with pytest.raises(FaultError, match=r"the plan covers images 0\.\.9, asked for 0\.\.149"), inject(net, plan):
        net(images)


def test_listed_faults_are_not_drawn(net: Net) -> None:
    plan: Plan = explicit_plan(net, [])
    with pytest.raises(FaultError, match="nothing can be drawn"):
        draw_plan(net, plan.faults)
