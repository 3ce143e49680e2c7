"""The compiled path: what inject computes, from one graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from faulty_net import Net, some_images, state, trained_net
from torch import Tensor, nn
from torch._dynamo.utils import counters

from ftnas.errors import FaultError
from ftnas.faults import Chip, CompiledNet, inject, parse_fault, sites
from ftnas.faults.compiled import capacity
from ftnas.quantization import QuantizedConv2d

BATCH = 16
FAULTS = ["features.mac_bit_bias:1e-3", "features.stuck_bit:1e-3", "weights.stuck_cell:0.1", "weights.gaussian:0.1"]


@pytest.fixture(scope="module")
def net() -> Net:
    return trained_net()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return some_images()[:BATCH]


@pytest.fixture(scope="module")
def compiled(net: Net, images: Tensor) -> CompiledNet:
    """Return the net traced as one graph, without the minutes of a C++ compiler."""
    return CompiledNet(net, images, FAULTS, backend="eager")


def injected(net: Net, images: Tensor, faults: Sequence[str], *, chip: int, first_image: int = 0) -> Tensor:
    with torch.no_grad(), inject(net, faults, chip=chip, study="ftnas", first_image=first_image):
        logits: Tensor = net(images)
    return logits


@pytest.mark.parametrize(("chip", "first_image"), [(0, 0), (1, 0), (1, 48), (0, 0)])
def test_it_computes_what_inject_does(
    net: Net, images: Tensor, compiled: CompiledNet, chip: int, first_image: int
) -> None:
    expected = injected(net, images, FAULTS, chip=chip, first_image=first_image)
    assert torch.equal(compiled(images, chip=chip, first_image=first_image), expected)


def test_it_computes_smaller_batches(net: Net, images: Tensor, compiled: CompiledNet) -> None:
    assert torch.equal(compiled(images[:5], chip=2), injected(net, images[:5], FAULTS, chip=2))


def test_it_takes_lower_rates(net: Net, images: Tensor, compiled: CompiledNet) -> None:
    lower = ["features.mac_bit_bias:1e-4", "features.stuck_bit:0", "weights.stuck_cell:0.01", "weights.gaussian:0"]
    assert torch.equal(compiled(images, faults=lower, chip=3), injected(net, images, lower, chip=3))


@pytest.mark.parametrize(
    "fault",
    [
        "features.bit_flip:1e-3",
        "features.bit_flip:1e-3:adjacent=2",
        "features.directed_flip:1e-3:to_one=0.2",
        "features.random_value:1e-3",
        "features.bit_bias:1e-3",
        "features.pattern:1e-3:shape=row:value=out_of_range",
        "features.pattern:1e-3:shape=across_channels:value=flip",
        "features.bit_flip:1e-3:duration=permanent",
        "weights.bit_flip:1e-2:duration=transient",
    ],
)
def test_it_knows_every_fault_of_codes(net: Net, images: Tensor, fault: str) -> None:
    compiled = CompiledNet(net, images, fault, backend="eager")
    for chip in range(2):
        assert torch.equal(compiled(images, chip=chip), injected(net, images, [fault], chip=chip))


def test_there_is_room_for_what_one_image_has_in_all_images_if_faults_last() -> None:
    net = nn.Sequential(QuantizedConv2d(1, 1, 3))
    net(torch.randn(8, 1, 8, 8))
    where = replace(sites(net, "0.output")[0], shape=(1, 8, 8))
    fault = parse_fault("features.bit_flip:1e-3:duration=permanent")
    most = max(len(Chip("room", chip, (fault,)).site_plan(where, 0, range(64))) for chip in range(300))
    assert most <= capacity(fault, where, 64) < 64 * 64
    assert most > capacity(replace(fault, duration="transient"), where, 64)  # which is not enough


def test_another_chip_compiles_nothing(images: Tensor, compiled: CompiledNet) -> None:
    compiled(images, chip=10)
    before = dict(counters["stats"])
    for chip in range(11, 16):
        compiled(images[: chip - 5], chip=chip, first_image=chip)
    assert dict(counters["stats"]) == before


def test_more_nets_are_compiled_than_torch_allows_graphs_of_one_code(net: Net, images: Tensor) -> None:
    for count in range(10):
        fault = f"features.bit_flip:{count + 1}e-4"
        compiled = CompiledNet(net, images, fault, backend="eager")
        assert torch.equal(compiled(images, chip=1), injected(net, images, [fault], chip=1))


def test_the_model_stays_as_it_was(net: Net, images: Tensor) -> None:
    before = state(net, images)
    CompiledNet(net, images, FAULTS, backend="eager")(images, chip=4)
    assert state(net, images) == before


def test_too_many_faults_and_images_are_refused(images: Tensor, compiled: CompiledNet) -> None:
    with pytest.raises(FaultError, match=r"stem.output: \d+ values fail, the net was compiled with room for \d+"):
        compiled(images, faults=["features.mac_bit_bias:0.5", *FAULTS[1:]])
    with pytest.raises(FaultError, match="at most 16 images, got 32"):
        compiled(torch.cat([images, images]))
    with pytest.raises(FaultError, match=r"compiled for features.mac_bit_bias, .* in this order"):
        compiled(images, faults="features.bit_flip:1e-3")


@pytest.mark.parametrize("fault", ["features.gaussian:0.1", "features.mac_bit_bias:1e-3:bias=published"])
def test_what_is_no_operation_on_codes_is_refused(net: Net, images: Tensor, fault: str) -> None:
    with pytest.raises(FaultError, match="cannot be compiled; inject it"):
        CompiledNet(net, images, fault, backend="eager")


def test_a_layer_that_runs_twice_is_refused(images: Tensor) -> None:
    layer = QuantizedConv2d(3, 3, 3)
    model = nn.Sequential(layer, layer)
    model(images)
    with pytest.raises(FaultError, match="runs more than once"):
        CompiledNet(model.eval(), images, "features.bit_flip:1e-3", backend="eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch about itself
def test_the_compiler_s_own_code_agrees(net: Net, images: Tensor) -> None:
    compiled = CompiledNet(net, images, FAULTS)
    for chip in range(3):
        ours, theirs = compiled(images, chip=chip), injected(net, images, FAULTS, chip=chip)
        assert (ours.argmax(1) == theirs.argmax(1)).float().mean() >= 0.9
        assert (ours - theirs).abs().max() <= 0.1 * theirs.abs().max()
