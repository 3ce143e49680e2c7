"""Checkpoints: they bring everything back, and one that is no whole checkpoint is named in a line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_nets import same_bits, small_net, state
from small_trainings import hundred_digits, run
from torch import Tensor, nn

from ftnas.errors import RunError
from ftnas.files import read_tensors, write_tensors
from ftnas.training import descend, load_checkpoint, save_checkpoint

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.01),
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return hundred_digits()[0]


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return hundred_digits()[1]


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


def test_weights_alone_are_no_checkpoint(tmp_path: Path) -> None:
    write_tensors(tmp_path / "checkpoint", small_net().state_dict())
    with pytest.raises(RunError, match="belongs to another model"):
        run(checkpoint=tmp_path / "checkpoint")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_checkpoint_is_named_in_one_line(share: float, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    save_checkpoint(checkpoint, small_net(), {}, {"records": []})
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RunError, match=r"\A\S+checkpoint: is not a whole safetensors file .+\Z"):
        run(checkpoint=checkpoint)


def test_a_checkpoint_holds_named_tensors_and_plain_data(tmp_path: Path) -> None:
    run(checkpoint=tmp_path / "checkpoint")
    tensors, progress = read_tensors(tmp_path / "checkpoint")
    assert {name.partition(".")[0] for name in tensors} == {"model", "sgd"}
    assert [record["epoch"] for record in progress["records"]] == [0, 1, 2]
