"""The fault-tolerant loss: what it mixes, and that only the clean pass updates statistics."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_nets import same_bits, small_net, state
from small_trainings import FAULTS, hundred_digits, statistics
from torch import Tensor, nn

from ftnas.faults import inject
from ftnas.training import FaultTolerantLoss, Losses, Step


@pytest.fixture(scope="module")
def images() -> Tensor:
    return hundred_digits()[0]


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return hundred_digits()[1]


def loss_of(net: nn.Module, images: Tensor, labels: Tensor, share: float, *, chip: int = 5) -> Losses:
    return FaultTolerantLoss(FAULTS, share, study="test")(net, net, Step(images, labels, chip))


def gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("faults", [FAULTS, []], ids=["share 0", "no faults"])
def test_without_share_or_faults_the_loss_is_plain_cross_entropy(
    faults: list[object], images: Tensor, labels: Tensor
) -> None:
    plain, net = small_net(), small_net()
    cross_entropy = F.cross_entropy(plain(images), labels)
    cross_entropy.backward()
    share = 0.0 if faults else 0.5
    losses = FaultTolerantLoss(faults, share, study="test")(net, net, Step(images, labels, 0))  # type: ignore[arg-type]
    losses.total.backward()
    assert torch.equal(losses.total, cross_entropy)
    assert same_bits(gradients(net), gradients(plain))
    assert same_bits(state(net), state(plain))


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_the_loss_mixes_what_is_lost_clean_and_under_faults(share: float, images: Tensor, labels: Tensor) -> None:
    net, judge = small_net(), small_net()
    clean = F.cross_entropy(judge(images), labels)
    with inject(judge, FAULTS, chip=5, study="test"):
        faulty = F.cross_entropy(judge(images), labels)
    losses = loss_of(net, images, labels, share)
    assert torch.equal(losses.total, (1 - share) * clean + share * faulty)
    assert (float(losses.clean), float(losses.faulty)) == (float(clean.detach()), float(faulty.detach()))
    assert not torch.equal(clean, faulty)


def test_the_gradient_is_mixed_as_the_loss_is(images: Tensor, labels: Tensor) -> None:
    parts = []
    for share in (0.25, 0.0, 1.0):
        net = small_net()
        loss_of(net, images, labels, share).total.backward()
        parts.append(gradients(net))
    mixed, clean, faulty = parts
    for name, gradient in mixed.items():
        assert torch.allclose(gradient, 0.75 * clean[name] + 0.25 * faulty[name], atol=1e-5), name


def test_the_logits_are_those_of_the_clean_pass(images: Tensor, labels: Tensor) -> None:
    clean = small_net()(images)
    losses = loss_of(small_net(), images, labels, 0.5)
    assert torch.equal(losses.logits, clean)
    assert not losses.logits.requires_grad


def test_the_faulty_pass_updates_no_statistics(images: Tensor, labels: Tensor) -> None:
    net, clean_only = small_net(), small_net()
    clean_only(images)
    loss_of(net, images, labels, 0.5)
    assert same_bits(statistics(net), statistics(clean_only))


def test_the_clean_pass_updates_every_statistic(images: Tensor, labels: Tensor) -> None:
    net = small_net()
    before = statistics(net)
    loss_of(net, images, labels, 0.5)
    assert [name for name, value in statistics(net).items() if torch.equal(value, before[name])] == []


def test_a_loss_has_the_faults_of_its_chip(images: Tensor, labels: Tensor) -> None:
    one, again, other = (float(loss_of(small_net(), images, labels, 0.5, chip=chip).faulty) for chip in (1, 1, 2))
    assert one == again != other
