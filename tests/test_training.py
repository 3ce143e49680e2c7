"""Training under faults: steps, records, and a loop that a kill does not change by a bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_nets import SmallNet, digits, same_bits, small_net, trained
from small_trainings import run
from torch import Tensor, nn

from ftnas.campaign import accuracy
from ftnas.errors import DataError
from ftnas.files import read_tensors
from ftnas.quantization import Quantization, Range
from ftnas.runtime import seeded
from ftnas.training import EpochRecord, TrainingSettings, cosine, descend, set_learning_rate, sgd

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


def test_one_key_gives_the_same_bits() -> None:
    (one, records), (other, other_records) = run(), run()
    assert same_bits(one, other)
    assert records == other_records


def test_another_key_gives_another_training() -> None:
    assert not same_bits(run()[0], run(key="other")[0])


def test_a_training_does_not_read_the_global_stream() -> None:
    with seeded("one"):
        one = run()[0]
    with seeded("other"):
        other = run()[0]
    assert same_bits(one, other)


def test_every_epoch_is_reported_once_and_in_order() -> None:
    reported: list[EpochRecord] = []
    _, records = run(on_epoch=reported.append)
    assert [record.epoch for record in records] == [0, 1, 2]
    assert [replace(record, seconds=0.0) for record in reported] == records


def test_a_record_holds_the_mixed_loss() -> None:
    _, records = run()
    assert all(r.loss == pytest.approx(0.5 * r.clean_loss + 0.5 * r.faulty_loss, rel=1e-5) for r in records)


def test_a_plain_training_has_no_faulty_loss() -> None:
    _, records = run(TrainingSettings(epochs=1, batch_size=32, faulty_share=0.0))
    assert [(record.faulty_loss, record.loss == record.clean_loss) for record in records] == [(0.0, True)]


def test_fewer_images_than_a_batch_are_the_users_mistake() -> None:
    with pytest.raises(DataError, match=r"batch_size: 1..100 for 100 images, got 128"):
        run(TrainingSettings(epochs=1, batch_size=128))


def test_both_passes_of_a_step_see_the_same_images() -> None:
    net, seen = small_net(), list[Tensor]()
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    run(net=net)
    assert len(seen) == 3 * 3 * 2
    assert all(torch.equal(clean, faulty) for clean, faulty in zip(seen[::2], seen[1::2], strict=True))


def test_every_epoch_has_an_order_of_its_own() -> None:
    net, seen = small_net(), list[Tensor]()
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    run(TrainingSettings(epochs=2, batch_size=100, faulty_share=0.0), net=net)
    first, second = (images.flatten(1).sum(1) for images in seen)
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)


def test_the_learning_rate_falls_over_the_whole_training(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    monkeypatch.setattr("ftnas.training.trainer.set_learning_rate", lambda _, rate: rates.append(rate))
    run(TrainingSettings(epochs=2, batch_size=32, learning_rate=0.2, final_learning_rate=0.1))
    assert rates == [cosine(0.2, 0.1, step / 6) for step in range(6)]


def test_a_training_clips_its_gradients() -> None:
    settings = TrainingSettings(
        epochs=1, batch_size=50, learning_rate=0.1, weight_decay=0, gradient_clip=1e-3, clip="none"
    )
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
    epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftnas.training.saving.REST", 0)
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftnas.training.saving.REST", 0)
    numbers = Quantization(weight_range=Range("learned"), feature_range=Range("learned"))

    def net() -> SmallNet:
        with seeded("learned"):
            return SmallNet(4, numbers)

    with pytest.raises(Killed):
        run(checkpoint=tmp_path / "checkpoint", on_epoch=kill_after(1), net=net())
    assert same_bits(run(checkpoint=tmp_path / "checkpoint", net=net())[0], run(net=net())[0])


def test_saving_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftnas.training.saving.REST", 1e9)
    with pytest.raises(Killed):
        run(checkpoint=tmp_path / "checkpoint", on_epoch=kill_after(2))
    # The first save waits for nothing; the second would have to wait a billion times as long as it took.
    assert [record["epoch"] for record in read_tensors(tmp_path / "checkpoint")[1]["records"]] == [0]


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
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
