"""What only a GPU can show. Run with ``python -m pytest -m gpu``."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from robust_nets import robust_net
from small_nets import digits
from torch import Tensor

from ftnas.data import Augmentation, batches
from ftnas.faults import inject, parse_fault
from ftnas.networks import CellNetwork, build_baseline
from ftnas.pipeline.config import load_config
from ftnas.pipeline.run import search
from ftnas.runtime import place, seeded
from ftnas.search.architecture import ArchitectureWeights
from ftnas.search.supernet_training import SupernetSettings, SupernetTrainer
from ftnas.space import load_space
from ftnas.training import Step, TrainingSettings, train
from ftnas.training.trainer import _Training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here"),
]

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SHAPE: dict[str, Any] = {"image_shape": (1, 8, 8), "classes": 10}
FEATURES = "features.mac_bit_bias:1e-2"


@pytest.fixture
def no_waits() -> Any:
    """Let the block of a test fail where the host waits for the GPU."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def images(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return digits().train_images[:count].to(device), digits().train_labels[:count].to(device)


def small_training(*faults: str, **settings: Any) -> _Training:
    """Return a training of a small net on the GPU whose first steps are behind it."""
    net, (x, y) = place(robust_net(), GPU), images(128, GPU)
    chosen = TrainingSettings.model_validate({"epochs": 1, "batch_size": 32, **settings})
    made = _Training(net, x, y, settings=chosen, faults=[parse_fault(f) for f in faults], key="gpu", checkpoint=None)
    net.train()
    for chip in range(2):
        made._step(x[:32], y[:32], chip)
    torch.cuda.synchronize()
    return made


@pytest.mark.parametrize(
    ("faults", "settings"),
    [
        ((), {"objective": "qat"}),
        ((FEATURES,), {}),
        (("weights.stuck_cell:0.05",), {}),
        (("weights.lognormal:0.3", "weights.bit_flip:0.01:duration=transient"), {}),
        ((FEATURES,), {"objective": "sam", "relative_rho": 0.1}),
        ((FEATURES,), {"objective": "saq"}),
        ((FEATURES,), {"sparsity": {"l1": 0.01, "hoyer": 0.01}, "lipschitz": {"weight": 0.01}}),
        ((FEATURES,), {"precision": "bf16"}),
        ((FEATURES,), {"precision": "tf32"}),
    ],
    ids=str,
)
def test_a_step_waits_for_nothing(faults: tuple[str, ...], settings: dict[str, Any], no_waits: None) -> None:
    made = small_training(*faults, **settings)
    torch.cuda.set_sync_debug_mode("error")
    made._step(made.images[32:64], made.labels[32:64], 3)


def test_batches_wait_for_nothing(no_waits: None) -> None:
    x, y = images(128, GPU)
    augmentation = Augmentation(crop_padding=1, flip=True, cutout=2)
    list(batches(x, y, batch_size=32, augmentation=augmentation, key=("first",)))
    torch.cuda.set_sync_debug_mode("error")
    list(batches(x, y, batch_size=32, augmentation=augmentation, key=("second",)))


@pytest.mark.parametrize("relaxation", ["softmax", "uniform"])
def test_steps_of_the_supernet_wait_for_nothing(relaxation: Any, no_waits: None) -> None:
    space = load_space("tiny")
    with seeded("gpu"):
        supernet = place(CellNetwork(space, space.search, **SHAPE), GPU).train()
    architecture = ArchitectureWeights(space).to(GPU)
    settings = SupernetSettings(epochs=1, warm_up=0, batch_size=16, relaxation=relaxation)
    trainer = SupernetTrainer(supernet, architecture, settings=settings, faults=[parse_fault(FEATURES)], key="gpu")
    x, y = images(16, GPU)
    for chip in range(40):
        for has_gates, move in ((False, trainer._move_weights), (True, trainer._move_architecture)):
            if chip == 30:  # by now every layer has been on a path
                torch.cuda.set_sync_debug_mode("error")
            move(trainer._sample(chip, 0, key="gpu", has_gates=has_gates), Step(x, y, chip))


@pytest.mark.parametrize(
    "fault",
    [
        FEATURES,
        "features.mac_bit_bias:1e-2:bias=published",
        "features.random_value:1e-2",
        "weights.bit_flip:0.01",
        "weights.stuck_cell:0.05",
        "weights.bitwise_stuck_cell:0.05",
    ],
)
def test_faults_change_the_same_codes_on_both_devices(fault: str) -> None:
    """Features are compared at the first layer, whose input is alike; its sums are of whole numbers, so exact."""
    model = place(robust_net().eval(), CPU)
    with torch.no_grad():
        model.first.weight.copy_((model.first.weight * 64).round() / 64)
        model.first.norm = None
        model.first.feature_limit.fill_(8.0)
    x = (digits().train_images[:70] * 16).round() / 16
    found = []
    for device in (CPU, GPU):
        net = copy.deepcopy(model).to(device)
        with torch.no_grad(), inject(net, fault, chip=3) as injection:
            y = net.first(x.to(device))
        found.append((y.cpu(), injection.counts["first.output" if fault.startswith("features") else "first.weight"]))
    (ours, counts), (theirs, others) = found
    assert torch.equal(ours, theirs)
    assert counts == others and counts.effective


def test_a_training_is_that_of_the_cpu_but_for_rounding() -> None:
    records = []
    for device in (CPU, GPU):
        net, (x, y) = place(robust_net(), device), images(256, device)
        settings = TrainingSettings(epochs=1, batch_size=32)
        records += train(net, x, y, settings=settings, faults=[parse_fault(FEATURES)], key="gpu")
    assert records[1].clean_loss == pytest.approx(records[0].clean_loss, rel=0.02)
    assert records[1].faulty_loss == pytest.approx(records[0].faulty_loss, rel=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch about itself
@pytest.mark.parametrize("way", ["default", "cuda_graphs"])
def test_a_compiled_training_is_the_training(way: str) -> None:
    found = []
    for compile in ("none", way):
        with seeded("gpu"):
            net = place(build_baseline("resnet20", width=0.25, **SHAPE), GPU)
        settings = TrainingSettings(epochs=2, batch_size=32, objective="qat", compile=compile)
        found += [train(net, *images(128, GPU), settings=settings, faults=(), key="gpu")[-1]]
    assert found[1].clean_loss == pytest.approx(found[0].clean_loss, rel=0.02)


@pytest.mark.parametrize("changes", [(), ("training.precision=bf16", "supernet.precision=bf16")], ids=str)
def test_a_search_finds_a_net(changes: tuple[str, ...], tmp_path: Path) -> None:
    config = load_config(
        Path(__file__).parents[1] / "experiments" / "smoke.yaml", assignments=("device=cuda", *changes)
    )
    found = search(config, tmp_path / "run")
    assert found.comparison["rows"]
