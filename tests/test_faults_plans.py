"""Plans: what inject would do, as data that is saved, checked and replayed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fault_strategies import models
from faulty_net import EVERY_FAULT, IMAGES, LEARNED, VARIANTS, WEIGHT_FAULTS, Net, some_images, state, trained_net
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ftnas.errors import FaultError
from ftnas.faults import (
    BitBias,
    BitwiseStuckCell,
    Fault,
    Plan,
    StuckCell,
    draw_plan,
    inject,
    load_plan,
    output_shapes,
    save_plan,
    with_rate,
)
from ftnas.faults.events import NEGATIVE_CELL, POSITIVE_CELL
from ftnas.faults.models import duration
from ftnas.files import read_tensors, write_tensors
from ftnas.quantization import Quantization, QuantizedConv2d, Range

WHOLE = range(IMAGES)
FAULTS = EVERY_FAULT + VARIANTS


@pytest.fixture(scope="module")
def images() -> Tensor:
    return some_images()


@pytest.fixture(scope="module")
def net() -> Net:
    return trained_net()


@pytest.fixture(scope="module")
def plan(net: Net, images: Tensor) -> Plan:
    return draw_plan(net, FAULTS, images=WHOLE, shapes=output_shapes(net, images[:1]), chip=5, study="plans")


def test_shapes_are_those_of_one_image(net: Net, images: Tensor) -> None:
    shapes = output_shapes(net, images[:3])
    assert shapes == {"stem.output": (8, 8, 8), "body.output": (8, 8, 8), "sum.output": (8, 8, 8), "head.output": (10,)}


@pytest.mark.parametrize("choice", [Quantization(), LEARNED], ids=str)
def test_finding_shapes_and_drawing_a_plan_change_nothing(choice: Quantization, images: Tensor) -> None:
    model = nn.Sequential(QuantizedConv2d(3, 4, 3, choices=(choice,)), nn.BatchNorm2d(4), nn.Dropout())
    before = state(model, images)
    draw_plan(model, EVERY_FAULT, images=range(2), shapes=output_shapes(model, images))
    assert state(model, images) == before


def test_a_plan_replays_what_live_injection_does(net: Net, images: Tensor, plan: Plan) -> None:
    with inject(net, FAULTS, chip=5, study="plans") as live:
        expected = net(images)
    with inject(net, plan) as replayed:
        assert torch.equal(net(images), expected)
    assert replayed.counts == live.counts


@pytest.mark.parametrize("first", [3, 64, 100])
def test_a_plan_replays_any_part_of_its_images(net: Net, images: Tensor, plan: Plan, first: int) -> None:
    part = images[first : first + 40]
    with inject(net, FAULTS, chip=5, study="plans", first_image=first):
        expected = net(part)
    with inject(net, plan, first_image=first) as injection:
        assert torch.equal(net(part), expected)
    assert injection.counts["stem.output"].applied < injection.counts["stem.output"].planned


def test_a_plan_survives_its_file(net: Net, images: Tensor, plan: Plan, tmp_path: Path) -> None:
    save_plan(plan, tmp_path / "plan.safetensors")
    loaded = load_plan(tmp_path / "plan.safetensors", net)
    assert loaded == plan
    with inject(net, plan):
        expected = net(images)
    with inject(net, loaded):
        assert torch.equal(net(images), expected)


@settings(max_examples=30)
@given(faults=st.lists(models(st.floats(0, 1), st.floats(0, 2), bits=8), max_size=4))
def test_a_plan_of_any_models_survives_its_file_and_does_what_live_injection_does(
    faults: list[Fault], net: Net, images: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    faults = [fault for fault in faults if fault.target == "features" or duration(fault) == "permanent"]
    path = tmp_path_factory.mktemp("plans") / "plan"
    save_plan(draw_plan(net, faults, images=range(20), shapes=output_shapes(net, images[:1])), path)
    with inject(net, load_plan(path, net)) as replayed:
        result = net(images[:20])
    with inject(net, faults) as live:
        assert torch.equal(net(images[:20]), result)
    for name, count in live.counts.items():
        assert replayed.counts[name] == count


FORMATS = [
    Quantization(weight_bits=4, weight_range=Range("max_per_channel"), feature_bits=5, feature_signed=False),
    Quantization(weight_bits=16, weight_range=Range("power_of_two_per_channel"), feature_bits=16),
    Quantization(weight_bits=2, weight_range=Range("max"), feature_bits=2, feature_range=Range("max")),
]
WORDS = [Quantization(word=word) for word in ("float32", "bfloat16", "float16")]
OF_WORDS = ["bit_flip:0.01", "stuck_bit:0.01", "directed_flip:0.01", "random_value:0.01"]


@pytest.mark.parametrize("choice", FORMATS + WORDS, ids=str)
def test_a_net_of_any_format_replays_its_plan(choice: Quantization, images: Tensor) -> None:
    torch.manual_seed(0)
    model = Net((choice,))
    model(images)
    clean = model.eval()(images)
    of_words: list[Fault | str] = [f"{target}.{text}" for target in ("weights", "features") for text in OF_WORDS]
    faults = EVERY_FAULT if choice in FORMATS else [*of_words, "features.pattern:0.1:shape=row", "weights.gaussian:0.1"]
    plan = draw_plan(model, faults, images=WHOLE, shapes=output_shapes(model, images[:1]))
    with inject(model, plan) as replayed:
        result = model(images)
    with inject(model, faults) as live:
        assert torch.equal(model(images).nan_to_num(7.0), result.nan_to_num(7.0))
    assert not torch.equal(result, clean)
    assert replayed.counts == live.counts
    assert all(count.effective > 0 for count in live.counts.values())


def test_plans_of_other_chips_differ(net: Net) -> None:
    assert draw_plan(net, StuckCell(0.1), chip=1) == draw_plan(net, StuckCell(0.1), chip=1)
    assert draw_plan(net, StuckCell(0.1), chip=1) != draw_plan(net, StuckCell(0.1), chip=2)


def test_a_plan_of_weight_faults_needs_no_images(net: Net, images: Tensor) -> None:
    with inject(net, WEIGHT_FAULTS, chip=2):
        expected = net(images)
    with inject(net, draw_plan(net, WEIGHT_FAULTS, chip=2)):
        assert torch.equal(net(images), expected)


@pytest.mark.parametrize("fault", EVERY_FAULT, ids=str)
def test_a_plan_at_strength_zero_is_empty(fault: Fault, net: Net, images: Tensor) -> None:
    nothing = draw_plan(net, with_rate(fault, 0.0), images=range(5), shapes=output_shapes(net, images[:1]))
    assert {len(planned) for planned in nothing.sites.values()} == {0}


def test_feature_faults_without_shapes_are_refused(net: Net) -> None:
    with pytest.raises(FaultError, match="feature faults need images"):
        draw_plan(net, BitBias(0.1))


def test_images_outside_the_plan_are_refused(net: Net, images: Tensor, plan: Plan) -> None:
    with (
        pytest.raises(FaultError, match=r"covers images 0\.\.149, asked for 1\.\.150"),
        inject(net, plan, first_image=1),
    ):
        net(images)


def test_a_site_that_was_not_planned_is_refused(net: Net, images: Tensor) -> None:
    part = draw_plan(net, BitBias(0.1), images=WHOLE, shapes={"stem.output": (8, 8, 8)})
    with pytest.raises(FaultError, match=r"the plan has no site body\.output"), inject(net, part):
        net(images)


def test_other_image_sizes_are_refused(net: Net, plan: Plan) -> None:
    with pytest.raises(FaultError, match=r"stem\.output is \(8, 8, 8\) there, \(8, 6, 6\) here"), inject(net, plan):
        net(torch.zeros(2, 3, 6, 6))


def test_another_width_of_codes_is_refused(images: Tensor) -> None:
    narrow = Quantization(weight_bits=4)
    model = nn.Sequential(QuantizedConv2d(3, 4, 3, choices=(Quantization(), narrow)))
    drawn = draw_plan(model, StuckCell(0.1))
    with pytest.raises(FaultError, match=r"for 8 bit codes at 0\.weight, which now has 4"), inject(model, drawn):
        model[0](images, narrow)


def test_a_plan_says_its_chip_itself(net: Net, plan: Plan) -> None:
    with pytest.raises(FaultError, match="the plan is of chip 5 of 'plans', not of chip 6"), inject(net, plan, chip=6):
        pass


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (nn.Sequential(QuantizedConv2d(3, 8, 3)), "another network: this one has no site stem"),
        (nn.ModuleDict({"stem": QuantizedConv2d(3, 4, 3), "body": QuantizedConv2d(8, 8, 3)}), "there, "),
    ],
)
def test_the_plan_of_another_network_is_refused(other: nn.Module, said: str, net: Net, tmp_path: Path) -> None:
    drawn = draw_plan(net, StuckCell(0.1))
    save_plan(drawn, tmp_path / "plan")
    with pytest.raises(FaultError, match=said):
        load_plan(tmp_path / "plan", other)
    with pytest.raises(FaultError, match=said), inject(other, drawn):
        pass


def corrupt(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "text":
        path.write_text("a plan")
    elif how == "no description":
        save_file(load_file(path), path)
    else:
        save_file({"0.element": torch.zeros(1)}, path, metadata={"ftnas": how})


@pytest.mark.parametrize("how", ["missing", "truncated", "text", "no description", "[]", '{"plan": {"schema": 9}}'])
def test_a_file_that_is_no_plan_is_one_line_that_names_it(how: str, net: Net, tmp_path: Path) -> None:
    path = tmp_path / "plan"
    save_plan(draw_plan(net, StuckCell(0.1)), path)
    corrupt(path, how)
    with pytest.raises(FaultError) as error:
        load_plan(path, net)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "entry"), [("element", -1), ("element", 8 * 27), ("bit", 8), ("bit", -2), ("kind", 9), ("value", 2)]
)
def test_impossible_events_in_a_file_are_refused(column: str, entry: int, net: Net, tmp_path: Path) -> None:
    path = tmp_path / "plan"
    save_plan(draw_plan(net, BitwiseStuckCell(0.1)), path)
    tensors, metadata = read_tensors(path)
    tensors[f"0.{column}"][0 if entry < 0 else -1] = entry
    write_tensors(path, tensors, metadata)
    with pytest.raises(FaultError, match=r"impossible events at stem\.weight"):
        load_plan(path, net)


def test_a_file_says_element_bit_kind_and_value_of_each_event(net: Net, tmp_path: Path) -> None:
    save_plan(draw_plan(net, BitwiseStuckCell(0.1)), tmp_path / "plan")
    tensors, metadata = read_tensors(tmp_path / "plan")
    assert metadata["plan"]["sites"][0] == ["stem.weight", 0, [8, 3, 3, 3], 8]
    assert tensors["0.element"].dtype == torch.int64
    assert set(tensors["0.bit"].tolist()) == set(range(7))
    assert set(tensors["0.kind"].tolist()) == {POSITIVE_CELL, NEGATIVE_CELL}
    assert set(tensors["0.value"].tolist()) == {0, 1}
