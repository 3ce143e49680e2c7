"""Supernet training: what moves when, and that stopping it changes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ftnas.faults import parse_fault
from ftnas.files import read_tensors
from ftnas.networks import CellNetwork
from ftnas.quantization import quantized_layers
from ftnas.runtime import keyed_generator, seeded
from ftnas.search.architecture import ArchitectureWeights
from ftnas.search.supernet_training import SupernetEpoch, SupernetSettings, SupernetTrainer
from ftnas.space import SearchSpace, Sizes, load_space
from ftnas.training.descent import Descent

RELAXATIONS = ["softmax", "gumbel", "uniform"]
TINY = load_space("tiny")
# Both edges of the only node are on every path; four steps are a round.
OPEN = SearchSpace(
    name="open",
    operators=("conv_1x1", "relu_conv_bn_3x3", "sep_conv_3x3", "skip_connect"),
    quantization=TINY.quantization,
    nodes=1,
    inputs_per_node=2,
    search=Sizes(channels=4, cells=1),
    final=Sizes(channels=4, cells=1),
)


def images(count: int, key: str) -> tuple[Tensor, Tensor]:
    rng = keyed_generator("test images", key)
    return torch.randn(count, 1, 8, 8, generator=rng), torch.randint(10, (count,), generator=rng)


SHARED, VALIDATION = images(32, "shared"), images(8, "validation")


def make(space: SearchSpace = TINY, **settings: object) -> SupernetTrainer:
    """Return a trainer of a fresh supernet: four weight steps and one architecture step an epoch."""
    with seeded("test supernet"):
        supernet = CellNetwork(space, space.search, image_shape=(1, 8, 8), classes=10)
    return SupernetTrainer(
        supernet,
        ArchitectureWeights(space),
        settings=SupernetSettings.model_validate({"batch_size": 8, **settings}),
        faults=[parse_fault("features.mac_bit_bias:1e-2")],
        key="test",
    )


def train(
    trainer: SupernetTrainer, folder: Path, on_epoch: Callable[[SupernetEpoch], None] = lambda record: None
) -> list[SupernetEpoch]:
    return trainer.train(SHARED, VALIDATION, checkpoint=folder / "checkpoint.safetensors", on_epoch=on_epoch)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_warm_up_leaves_architecture_weights_where_they_are(relaxation: str, tmp_path: Path) -> None:
    trainer = make(OPEN, relaxation=relaxation, epochs=1, warm_up=1)
    train(trainer, tmp_path)
    assert all(not weights.any() for weights in trainer.architecture.parameters())


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_after_warm_up_all_architecture_weights_move(relaxation: str, tmp_path: Path) -> None:
    # In a space without ``none``, from which no gradient comes.
    trainer = make(OPEN, relaxation=relaxation, epochs=2, warm_up=1)
    before = values(trainer.architecture)
    train(trainer, tmp_path)
    assert moved(before, values(trainer.architecture)) == set(before)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_every_relaxation_trains_the_shared_weights_of_all_operators(relaxation: str, tmp_path: Path) -> None:
    trainer = make(OPEN, relaxation=relaxation, epochs=1, warm_up=1)
    before = values(trainer.supernet)
    train(trainer, tmp_path)
    weights = {name for name in before if name.endswith("weight")}
    assert any("sep_conv_3x3" in name for name in weights)
    assert moved(before, values(trainer.supernet)) >= weights


def test_architecture_steps_leave_shared_weights_where_they_are(tmp_path: Path) -> None:
    with_steps = make(relaxation="uniform", epochs=1, warm_up=0)
    without = make(relaxation="uniform", epochs=1, warm_up=1)
    train(with_steps, tmp_path / "with")
    train(without, tmp_path / "without")
    assert moved(values(with_steps.supernet), values(without.supernet)) == set()


def test_warm_up_of_gumbel_is_uniform(tmp_path: Path) -> None:
    gumbel = make(relaxation="gumbel", epochs=1, warm_up=1)
    uniform = make(relaxation="uniform", epochs=1, warm_up=1)
    train(gumbel, tmp_path / "gumbel")
    train(uniform, tmp_path / "uniform")
    assert moved(values(gumbel.supernet), values(uniform.supernet)) == set()


def test_an_epoch_records_an_architecture_loss_only_after_warm_up(tmp_path: Path) -> None:
    records = train(make(epochs=2, warm_up=1), tmp_path)
    assert [record.architecture_loss is not None for record in records] == [False, True]


def test_the_recorded_loss_mixes_clean_and_faulty(tmp_path: Path) -> None:
    (record,) = train(make(epochs=1, faulty_share=0.25), tmp_path)
    assert record.loss == pytest.approx(0.75 * record.clean_loss + 0.25 * record.faulty_loss, rel=1e-5)
    assert record.faulty_loss != record.clean_loss


class Stopped(Exception):
    pass


@pytest.mark.parametrize(("relaxation", "epoch"), [("gumbel", 1), ("gumbel", 2), ("uniform", 1)])
def test_a_resumed_training_ends_in_the_same_bits(
    relaxation: str, epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftnas.training.saving.REST", 0)

    def stop(record: SupernetEpoch) -> None:
        if record.epoch == epoch:
            raise Stopped

    def trainer() -> SupernetTrainer:
        return make(relaxation=relaxation, epochs=3, warm_up=1)

    whole = train(trainer(), tmp_path / "whole")
    with pytest.raises(Stopped):
        train(trainer(), tmp_path / "parts", stop)
    trained_now: list[int] = []
    resumed = train(trainer(), tmp_path / "parts", lambda record: trained_now.append(record.epoch))

    assert trained_now == list(range(epoch, 3))
    assert [timeless(record) for record in resumed] == [timeless(record) for record in whole]
    # The last checkpoint holds weights, statistics and the moments of both optimisers.
    uninterrupted, _ = read_tensors(tmp_path / "whole" / "checkpoint.safetensors")
    continued, _ = read_tensors(tmp_path / "parts" / "checkpoint.safetensors")
    assert uninterrupted.keys() == continued.keys()
    assert moved(uninterrupted, continued) == set()


def timeless(record: SupernetEpoch) -> dict[str, float]:
    return {key: value for key, value in dataclasses.asdict(record).items() if key != "seconds"}


def test_another_key_draws_another_training(tmp_path: Path) -> None:
    first, second = make(epochs=1), make(epochs=1)
    loss = dataclasses.replace(second.objective.loss, study="another")  # type: ignore[attr-defined]
    second.objective = Descent(loss)
    train(first, tmp_path / "first")
    train(second, tmp_path / "second")
    assert moved(values(first.supernet), values(second.supernet))


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("objective", ["saq", "sam", "randbet"])
def test_shared_weights_can_be_trained_by_any_objective(objective: str, relaxation: str, tmp_path: Path) -> None:
    common = {"relaxation": relaxation, "epochs": 1, "warm_up": 0, "clip": 0.1}
    errors = {"faults": ["weights.bit_flip:0.01"], "loss_gate": 100.0} if objective == "randbet" else {}
    given = {"objective": objective, **common, **errors}
    plain, trainer = make(OPEN, **common, faults=[]), make(OPEN, **given)
    for each in (plain, trainer):
        train(each, tmp_path / type(each.objective).__name__)
    weights = [layer.weight for layer in quantized_layers(trainer.supernet).values() if layer.kind != "sum"]
    assert max(float(weight.detach().abs().max()) for weight in weights) == pytest.approx(0.1)
    assert moved(values(plain.supernet), values(trainer.supernet))
    assert all(value.isfinite().all() for value in values(trainer.supernet).values())
