"""Training under faults: the loss, calibration, checkpoints, and a loop that a kill does not change by a bit."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_nets import SmallNet, digits, same_bits, small_net, state, trained
from torch import Tensor, nn

from ftnas.campaign import accuracy
from ftnas.data import Augmentation
from ftnas.errors import DataError, RunError
from ftnas.faults import inject, parse_fault
from ftnas.files import read_tensors, write_tensors
from ftnas.quantization import MOMENTUM, CleanBatchNorm2d, Quantization, QuantizedLayer, Range
from ftnas.runtime import place, seeded
from ftnas.training import (
    EpochRecord,
    FaultTolerantLoss,
    Losses,
    TrainingSettings,
    cosine,
    descend,
    load_checkpoint,
    recalibrate,
    save_checkpoint,
    set_learning_rate,
    sgd,
    train,
)

FAULTS = [parse_fault("features.mac_bit_bias:1e-2"), parse_fault("weights.stuck_cell:0.05")]
SHORT = TrainingSettings(epochs=3, batch_size=32, augmentation=Augmentation(crop_padding=1))
BUFFERS = ("running_mean", "running_var", "feature_limit")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return digits().train_images[:100]


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return digits().train_labels[:100]


def loss_of(net: nn.Module, images: Tensor, labels: Tensor, share: float, *, chip: int = 5) -> Losses:
    return FaultTolerantLoss(FAULTS, share, study="test")(net, net, images, labels, chip=chip)


def gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def statistics(net: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in state(net).items() if name.endswith(BUFFERS)}


# The loss


@pytest.mark.parametrize("faults", [FAULTS, []], ids=["share 0", "no faults"])
def test_without_share_or_faults_the_loss_is_plain_cross_entropy(
    faults: list[object], images: Tensor, labels: Tensor
) -> None:
    plain, net = small_net(), small_net()
    cross_entropy = F.cross_entropy(plain(images), labels)
    cross_entropy.backward()
    share = 0.0 if faults else 0.5
    losses = FaultTolerantLoss(faults, share, study="test")(net, net, images, labels, chip=0)  # type: ignore[arg-type]
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


# Calibration


def calibrated(net: SmallNet, images: Tensor, batch_size: int) -> SmallNet:
    recalibrate(net, images, batch_size=batch_size)
    return net


def test_calibration_gives_the_mean_of_the_batches(images: Tensor) -> None:
    # Only the first layer sees the same in any company: what reaches the next hangs on the ranges so far.
    parts = [statistics(calibrated(small_net(), batch, len(batch))) for batch in images[:96].split(32)]
    whole = statistics(calibrated(small_net(), images[:96], 32))
    for name in (name for name in whole if name.startswith("first.")):
        assert torch.allclose(whole[name], torch.stack([part[name] for part in parts]).mean(0), rtol=1e-5), name


def test_calibration_on_one_batch_gives_the_statistics_of_that_batch(images: Tensor) -> None:
    net, seen = small_net(), []
    net.first.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))  # type: ignore[union-attr]
    recalibrate(net, images)
    assert isinstance(net.first.norm, CleanBatchNorm2d)
    assert net.first.norm.running_mean is not None and net.first.norm.running_var is not None
    assert torch.allclose(net.first.norm.running_mean, seen[0].mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(net.first.norm.running_var, seen[0].var((0, 2, 3)), rtol=1e-4)


def test_calibration_forgets_what_was_there(images: Tensor) -> None:
    fresh, used = small_net(), small_net()
    used(100 * images)
    assert same_bits(statistics(calibrated(used, images, 50)), statistics(calibrated(fresh, images, 50)))


@pytest.mark.parametrize("training", [True, False])
def test_calibration_gives_mode_and_momentum_back(training: bool, images: Tensor) -> None:
    net = calibrated(small_net().train(training), images, 40)
    layers = [layer for layer in net.modules() if isinstance(layer, (QuantizedLayer, CleanBatchNorm2d))]
    assert {layer.momentum for layer in layers} == {MOMENTUM}
    assert {module.training for module in net.modules()} == {training}


def test_calibration_changes_no_weight(images: Tensor) -> None:
    net = calibrated(small_net(), images, 40)
    before = dict(small_net().named_parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())


def test_calibration_takes_the_forward_it_is_given(images: Tensor) -> None:
    net = small_net()
    before = statistics(net)
    recalibrate(net, images, forward=lambda x: net.first(x))
    changed = {name for name, value in statistics(net).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("first.")}


# Steps


@pytest.mark.parametrize(("progress", "rate"), [(0.0, 0.1), (0.5, 0.06), (1.0, 0.02)])
def test_the_learning_rate_follows_a_cosine(progress: float, rate: float) -> None:
    assert math.isclose(cosine(0.1, 0.02, progress), rate)


def test_a_learning_rate_is_set_for_every_group() -> None:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [p]} for p in parameters], 1.0)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize(("slope", "step"), [(100.0, 5.0), (3.0, 3.0)])
def test_a_step_is_as_long_as_the_clipped_gradient(slope: float, step: float) -> None:
    weight = nn.Parameter(torch.zeros(()))
    descend(torch.optim.SGD([weight], 1.0), slope * weight, [weight], clip=5.0)
    assert float(weight.detach()) == pytest.approx(-step, rel=1e-5)


def test_a_step_forgets_the_gradient_of_the_last() -> None:
    weight = nn.Parameter(torch.zeros(()))
    for _ in range(2):
        descend(torch.optim.SGD([weight], 1.0), weight * 1.0, [weight], clip=5.0)
    assert float(weight.detach()) == pytest.approx(-2.0)


def test_the_optimiser_is_that_of_the_settings() -> None:
    settings = TrainingSettings(learning_rate=0.3, momentum=0.7, weight_decay=0.01)
    (group,) = sgd([nn.Parameter(torch.zeros(1))], settings).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.7, 0.01)


# Training


@pytest.fixture
def run(images: Tensor, labels: Tensor) -> Callable[..., tuple[dict[str, Tensor], list[EpochRecord]]]:
    def one(
        settings: TrainingSettings = SHORT,
        *,
        key: str = "test",
        checkpoint: Path | None = None,
        on_epoch: Callable[[EpochRecord], None] = lambda record: None,
        net: nn.Module | None = None,
    ) -> tuple[dict[str, Tensor], list[EpochRecord]]:
        net = net or place(small_net(), torch.device("cpu"))
        records = train(
            net, images, labels, settings=settings, faults=FAULTS, key=key, checkpoint=checkpoint, on_epoch=on_epoch
        )
        return state(net), [replace(record, seconds=0.0) for record in records]

    return one


Run = Callable[..., tuple[dict[str, Tensor], list[EpochRecord]]]


def test_one_key_gives_the_same_bits(run: Run) -> None:
    (one, records), (other, other_records) = run(), run()
    assert same_bits(one, other)
    assert records == other_records


def test_another_key_gives_another_training(run: Run) -> None:
    assert not same_bits(run()[0], run(key="other")[0])


def test_a_training_does_not_read_the_global_stream(run: Run) -> None:
    with seeded("one"):
        one = run()[0]
    with seeded("other"):
        other = run()[0]
    assert same_bits(one, other)


def test_every_epoch_is_reported_once_and_in_order(run: Run) -> None:
    reported: list[EpochRecord] = []
    _, records = run(on_epoch=reported.append)
    assert [record.epoch for record in records] == [0, 1, 2]
    assert [replace(record, seconds=0.0) for record in reported] == records


def test_a_record_holds_the_mixed_loss(run: Run) -> None:
    _, records = run()
    assert all(r.loss == pytest.approx(0.5 * r.clean_loss + 0.5 * r.faulty_loss, rel=1e-5) for r in records)


def test_a_plain_training_has_no_faulty_loss(run: Run) -> None:
    _, records = run(TrainingSettings(epochs=1, batch_size=32, faulty_share=0.0))
    assert [(record.faulty_loss, record.loss == record.clean_loss) for record in records] == [(0.0, True)]


def test_fewer_images_than_a_batch_are_the_users_mistake(run: Run) -> None:
    with pytest.raises(DataError, match=r"batch_size: 1..100 for 100 images, got 128"):
        run(TrainingSettings(epochs=1, batch_size=128))


def test_both_passes_of_a_step_see_the_same_images(run: Run) -> None:
    net, seen = small_net(), list[Tensor]()
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    run(net=net)
    assert len(seen) == 3 * 3 * 2
    assert all(torch.equal(clean, faulty) for clean, faulty in zip(seen[::2], seen[1::2], strict=True))


def test_every_epoch_has_an_order_of_its_own(run: Run) -> None:
    net, seen = small_net(), list[Tensor]()
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    run(TrainingSettings(epochs=2, batch_size=100, faulty_share=0.0), net=net)
    first, second = (images.flatten(1).sum(1) for images in seen)
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)


def test_the_learning_rate_falls_over_the_whole_training(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    monkeypatch.setattr("ftnas.training.trainer.set_learning_rate", lambda _, rate: rates.append(rate))
    run(TrainingSettings(epochs=2, batch_size=32, learning_rate=0.2, final_learning_rate=0.1))
    assert rates == [cosine(0.2, 0.1, step / 6) for step in range(6)]


def test_a_training_clips_its_gradients(run: Run) -> None:
    settings = TrainingSettings(epochs=1, batch_size=50, learning_rate=0.1, weight_decay=0, gradient_clip=1e-3)
    before, (after, _) = dict(small_net().named_parameters()), run(settings)
    way = torch.cat([(after[name] - value).flatten() for name, value in before.items()])
    # Two steps, the second with the momentum of the first.
    assert 0 < float(way.detach().norm()) < 0.1 * 1e-3 * (1 + 1.9)


class Killed(Exception):
    """What a test raises in the middle of a training."""


def kill_after(epoch: int) -> Callable[[EpochRecord], None]:
    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == epoch:
            raise Killed

    return on_epoch


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_killed_training_goes_on_to_the_same_bits(
    epoch: int, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftnas.training.trainer.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        run(checkpoint=checkpoint, on_epoch=kill_after(epoch))
    seen: list[int] = []
    resumed, records = run(checkpoint=checkpoint, on_epoch=lambda record: seen.append(record.epoch))
    whole, whole_records = run()
    assert seen == list(range(epoch, 3))
    assert same_bits(resumed, whole)
    assert [replace(record, seconds=0.0) for record in records] == whole_records


def test_a_killed_training_with_learned_ranges_goes_on_to_the_same_bits(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftnas.training.trainer.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    numbers = Quantization(weight_range=Range("learned"), feature_range=Range("learned"))

    def net() -> SmallNet:
        with seeded("learned"):
            return SmallNet(4, numbers)

    with pytest.raises(Killed):
        run(checkpoint=tmp_path / "checkpoint", on_epoch=kill_after(1), net=net())
    assert same_bits(run(checkpoint=tmp_path / "checkpoint", net=net())[0], run(net=net())[0])


def test_between_checkpoints_some_seconds_pass(run: Run, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(checkpoint=tmp_path / "checkpoint", on_epoch=kill_after(2))
    assert not (tmp_path / "checkpoint").exists()


def test_a_finished_training_is_not_trained_again(run: Run, tmp_path: Path) -> None:
    whole, records = run(checkpoint=tmp_path / "checkpoint")
    again, same_records = run(checkpoint=tmp_path / "checkpoint", on_epoch=kill_after(2))
    assert same_bits(again, whole)
    assert same_records == records


def test_a_short_fault_tolerant_training_learns_the_digits() -> None:
    net, _ = trained()
    assert accuracy(net, digits().test_images, digits().test_labels) > 0.8


def test_both_losses_fall_while_training() -> None:
    _, records = trained()
    assert records[-1].clean_loss < 0.5 * records[0].clean_loss
    assert records[-1].faulty_loss < 0.7 * records[0].faulty_loss


# Checkpoints

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.01),
}


def step(net: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    descend(optimizer, F.cross_entropy(net(images), labels), list(net.parameters()), clip=5.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_checkpoint_brings_model_and_optimiser_back(
    name: str, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    net, other = small_net(), small_net(seed=1)
    optimizer, other_optimizer = (OPTIMIZERS[name](list(model.parameters())) for model in (net, other))
    step(net, optimizer, images, labels)
    save_checkpoint(tmp_path / "checkpoint", net, {name: optimizer}, {"epoch": 1})
    assert load_checkpoint(tmp_path / "checkpoint", other, {name: other_optimizer}) == {"epoch": 1}
    assert same_bits(state(other), state(net))
    for model, its_optimizer in ((net, optimizer), (other, other_optimizer)):
        step(model, its_optimizer, images, labels)
    assert same_bits(state(other), state(net))


def test_saving_a_checkpoint_changes_nothing(images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    net, copied = small_net(), copy.deepcopy(small_net())
    save_checkpoint(tmp_path / "checkpoint", net, {"sgd": OPTIMIZERS["sgd"](list(net.parameters()))}, {})
    assert same_bits(state(net), state(copied))


def test_a_checkpoint_of_another_model_is_named_in_one_line(tmp_path: Path) -> None:
    net, wider = small_net(4), small_net(8)
    save_checkpoint(tmp_path / "checkpoint", net, {}, {})
    with pytest.raises(RunError, match=r"\A\S+checkpoint: belongs to another model; delete it to train again\Z"):
        load_checkpoint(tmp_path / "checkpoint", wider, {})


def test_weights_alone_are_no_checkpoint(run: Run, tmp_path: Path) -> None:
    write_tensors(tmp_path / "checkpoint", small_net().state_dict())
    with pytest.raises(RunError, match="belongs to another model"):
        run(checkpoint=tmp_path / "checkpoint")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_checkpoint_is_named_in_one_line(share: float, run: Run, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    save_checkpoint(checkpoint, small_net(), {}, {"records": []})
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RunError, match=r"\A\S+checkpoint: is not a whole safetensors file .+\Z"):
        run(checkpoint=checkpoint)


def test_a_checkpoint_holds_named_tensors_and_plain_data(run: Run, tmp_path: Path) -> None:
    run(checkpoint=tmp_path / "checkpoint")
    tensors, progress = read_tensors(tmp_path / "checkpoint")
    assert {name.partition(".")[0] for name in tensors} == {"model", "sgd"}
    assert [record["epoch"] for record in progress["records"]] == [0, 1, 2]
