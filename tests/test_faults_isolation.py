"""What other fault injectors were found to do to their user's model, data and process, and must not happen here."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from faulty_net import EVERY_FAULT, VARIANTS, Net, some_images, state, trained_net
from torch import Tensor, nn

from ftnas.faults import (
    BitBias,
    BitFlip,
    Fault,
    Flip,
    MacBitBias,
    StuckCell,
    draw_plan,
    explicit_plan,
    inject,
    output_shapes,
    with_rate,
)
from ftnas.quantization import QuantizedConv2d, QuantizedSum, current_tap

EVERYTHING = EVERY_FAULT + VARIANTS


@pytest.fixture(scope="module")
def images() -> Tensor:
    return some_images()


@pytest.fixture(scope="module")
def net() -> Net:
    return trained_net()


@pytest.mark.parametrize("planned", [True, False], ids=["plan", "live"])
def test_a_model_works_more_than_once(planned: bool, net: Net, images: Tensor) -> None:
    shapes = output_shapes(net, images[:1])
    source = draw_plan(net, EVERYTHING, images=range(150), shapes=shapes) if planned else EVERYTHING
    with inject(net, source) as injection:
        first, second = net(images), net(images)
        injection.first_image = 0
        third = net(images)
    with inject(net, source):
        fourth = net(images)
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert torch.equal(first, fourth)


def logging_state() -> tuple[object, ...]:
    root = logging.getLogger()
    formatters = [handler.formatter for handler in root.handlers]
    return root.level, list(root.handlers), formatters, logging.root.manager.disable, sorted(root.manager.loggerDict)


def test_logging_is_not_reconfigured_and_nothing_is_printed(
    net: Net, images: Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    before = logging_state()
    with inject(net, EVERYTHING):
        net(images)
    assert logging_state() == before
    assert capsys.readouterr() == ("", "")


def test_no_file_or_folder_is_made_or_needed(
    net: Net, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with inject(net, EVERYTHING):
        net(images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", EVERYTHING, ids=str)
def test_the_caller_s_input_is_not_edited(fault: Fault, net: Net, images: Tensor) -> None:
    before, version = images.clone(), images._version
    with inject(net, fault):
        net(images)
    assert torch.equal(images, before)
    assert images._version == version


class Residual(nn.Module):
    """Keeps the tensor that a convolution and a shortcut share."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.sum = QuantizedConv2d(3, 3, 3), QuantizedConv2d(3, 3, 3), QuantizedSum()
        self.shared = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.shared = self.first(x)
        return self.sum([self.shared, self.second(self.shared)])  # type: ignore[no-any-return]


def test_a_tensor_shared_with_a_shortcut_is_not_edited_by_faults_behind_it(images: Tensor) -> None:
    model = Residual()
    model(images)
    model.eval()
    clean, shared = model(images), model.shared.clone()
    shapes = {f"{layer}.output": (3, 8, 8) for layer in ("first", "second", "sum")}
    flips = [Flip(site, element, 6, image=1) for site in ("second.output", "sum.output") for element in range(192)]
    with inject(model, explicit_plan(model, flips, shapes=shapes, images=len(images))):
        assert not torch.equal(model(images), clean)
    assert torch.equal(model.shared, shared)


def test_a_sum_of_one_term_does_not_edit_the_term(images: Tensor) -> None:
    model = nn.ModuleDict({"sum": QuantizedSum()})
    model["sum"]([images])
    before = images.clone()
    with inject(model.eval(), BitFlip(0.5, "features")) as injection:
        assert not torch.equal(model["sum"]([images]), images)
    assert injection.counts["sum.output"].effective > 0
    assert torch.equal(images, before)


@pytest.mark.parametrize("rate", [0.1, 1.0])
@pytest.mark.parametrize("fault", [MacBitBias(0), BitBias(0), BitFlip(0, "features")], ids=lambda fault: fault.name)
def test_training_under_feature_faults_moves_every_parameter(fault: Fault, rate: float, images: Tensor) -> None:
    assert all(moved(with_rate(fault, rate), images).values())


@pytest.mark.parametrize("fault", [StuckCell(0.1), BitFlip(0.1)], ids=str)
def test_training_under_weight_faults_moves_every_parameter(fault: Fault, images: Tensor) -> None:
    assert all(moved(fault, images).values())


def test_weights_that_all_fail_do_not_move_and_the_rest_of_the_net_does(images: Tensor) -> None:
    found = moved(StuckCell(1.0), images)
    assert {name for name, moves in found.items() if not moves} == {"stem.weight", "body.weight"}


def moved(fault: Fault, images: Tensor) -> dict[str, bool]:
    """Train a step on a faulty chip; return which parameters moved. The loss must be finite."""
    torch.manual_seed(0)
    model = Net()
    model(images)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    labels = torch.randint(10, (len(images),), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with inject(model, fault):
        loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    assert bool(loss.isfinite())
    return {name: not torch.equal(value, before[name]) for name, value in model.named_parameters()}


def test_a_loop_of_faulty_steps_learns(images: Tensor) -> None:
    torch.manual_seed(0)
    model, labels = Net(), (images.mean((1, 2, 3)) > 0).long()
    model(images)
    optimizer, losses = torch.optim.SGD(model.parameters(), 0.1), []
    for step in range(25):
        with inject(model, ["features.mac_bit_bias:1e-3", "weights.stuck_cell:0.05"], chip=step):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.7 * losses[0]


@pytest.mark.parametrize("fault", EVERYTHING, ids=str)
def test_the_same_chip_does_not_depend_on_anybody_s_global_seed(fault: Fault, net: Net, images: Tensor) -> None:
    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        with inject(net, fault):
            return net(images[:20])

    assert torch.equal(run(1), run(2))


def test_the_same_chip_does_not_depend_on_what_was_injected_before(net: Net, images: Tensor) -> None:
    with inject(net, EVERYTHING, chip=3):
        expected = net(images)
    for chip in (9, 4):
        with inject(net, EVERYTHING, chip=chip):
            net(images[:7])
    with inject(net, EVERYTHING, chip=3):
        assert torch.equal(net(images), expected)


class Stopped(Exception):
    """What goes wrong inside the block."""


class Fails(nn.Module):
    """Raises in the middle of a forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        raise Stopped


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("where", ["in the block", "in the forward pass"])
def test_an_exception_leaves_nothing_behind(where: str, training: bool, images: Tensor) -> None:
    model = nn.Sequential(trained_net().stem, Fails(), nn.Dropout())
    model.train(training)
    before = state(model, images), logging_state(), gradients(model)
    with pytest.raises(Stopped), inject(model, EVERYTHING):
        model[0](images)
        model(images) if where == "in the forward pass" else Fails()(images)
    assert (state(model, images), logging_state(), gradients(model)) == before
    assert current_tap() is None


def gradients(model: nn.Module) -> list[tuple[bool, bool]]:
    return [(parameter.requires_grad, parameter.grad is None) for parameter in model.parameters()]


def test_two_threads_that_inject_different_faults_do_not_meet(net: Net, images: Tensor) -> None:
    jobs: list[tuple[Sequence[Fault], int]] = [(EVERYTHING[::2], 1), (EVERYTHING[1::2], 2), ([], 0)]

    def run(faults: Sequence[Fault], chip: int) -> Tensor:
        with inject(net, faults, chip=chip), torch.no_grad():
            return net(images)

    expected = [run(*job) for job in jobs]
    found: list[list[Tensor]] = [[] for _ in jobs]
    barrier = threading.Barrier(len(jobs))

    def work(index: int) -> None:
        barrier.wait()
        found[index] += [run(*jobs[index]) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(results) for results in found] == [5, 5, 5]
    assert all(torch.equal(one, alone) for results, alone in zip(found, expected, strict=True) for one in results)


def test_a_thread_without_an_injection_computes_cleanly_beside_one(net: Net, images: Tensor) -> None:
    clean, results = net(images), []
    with inject(net, BitFlip(0.1)):
        thread = threading.Thread(target=lambda: results.append(net(images)))
        thread.start()
        thread.join()
        assert not torch.equal(net(images), clean)
    assert torch.equal(results[0], clean)
