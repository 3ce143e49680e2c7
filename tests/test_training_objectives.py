"""Objectives: what each gradient is, and that nothing but the gradient is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from robust_nets import RobustNet, robust_net
from small_nets import same_bits, state
from small_trainings import hundred_digits, run
from torch import Tensor, nn

import ftnas.training.flatness
from ftnas.errors import ConfigError, TrainingError
from ftnas.faults import BitFlip, StuckBit, inject
from ftnas.quantization import Activation, QuantizedLayer, quantized_layers
from ftnas.training import OBJECTIVES, Step, TrainingSettings, build_objective, sharpness, train
from ftnas.training.bit_errors import worst_flips
from ftnas.training.views import Shifting, Watching, seen_through

FLIPS = BitFlip(0.05, target="weights")


def step(chip: int = 3) -> Step:
    return Step(*hundred_digits(), chip)


def settings(**given: Any) -> TrainingSettings:
    return TrainingSettings.model_validate({"gradient_clip": 1e9, "clip": "none", **given})


def gradients(net: nn.Module, **given: Any) -> dict[str, Tensor]:
    """Return the gradients of one step in training mode."""
    faults = given.pop("under", ())
    net.train()
    build_objective(settings(**given), faults, study="test").gradient(net, net, step())
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    assert found.keys() == dict(net.named_parameters()).keys()
    return found


@pytest.fixture
def net() -> RobustNet:
    return robust_net()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_gradients_and_the_statistics_of_one_clean_pass_are_left(objective: str, net: RobustNet) -> None:
    other = robust_net()
    other(hundred_digits()[0])  # one clean pass
    given: dict[str, Any] = {} if objective == "qat" else {"under": [FLIPS]}
    gradients(net, objective=objective, **given)
    assert same_bits(state(net), state(other))


@pytest.mark.parametrize("objective", ["sam", "saq"])
@pytest.mark.parametrize("key", ["rho", "relative_rho"])
def test_a_radius_of_0_is_plain_training_to_the_bit(objective: str, key: str) -> None:
    found, records = run(settings(objective=objective, epochs=2, batch_size=32, **{key: 0.0}), net=robust_net())
    plain, plain_records = run(settings(objective="ftt", epochs=2, batch_size=32), net=robust_net())
    assert same_bits(found, plain)
    assert records == plain_records


@contextmanager
def spied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Yield what SAQ and SAM move, and by how much."""
    moves: list[Any] = []
    original = ftnas.training.flatness._moves

    def noted(found: Any, radius: float) -> Any:
        moves.append(original(found, radius))
        return moves[-1]

    with monkeypatch.context() as patch:
        patch.setattr(ftnas.training.flatness, "_moves", noted)
        yield moves


@pytest.mark.parametrize("objective", ["sam", "saq"])
@pytest.mark.parametrize("rho", [0.05, 0.7])
def test_the_joint_norm_of_all_moves_is_the_radius(
    objective: str, rho: float, net: RobustNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spied(monkeypatch) as moves:
        gradients(net, objective=objective, rho=rho)
    (moved,) = moves
    assert torch.cat([move.flatten().double() for move in moved.values()]).norm().item() == pytest.approx(rho, rel=1e-6)
    layers = [key for key in moved if isinstance(key, QuantizedLayer)]
    assert len(layers) == (3 if objective == "saq" else 0)
    own = [key for key in moved if isinstance(key, nn.Parameter)]  # batch norm and biases, of SAM the weights too
    assert len(own) == (5 if objective == "saq" else 8)


def test_a_relative_radius_is_a_share_of_the_norm_of_the_weights(
    net: RobustNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = torch.cat([layer.weight.detach().flatten() for layer in quantized_layers(net).values()])
    with spied(monkeypatch) as moves:
        gradients(net, objective="saq", relative_rho=0.02)
    moved = torch.cat([move.flatten() for move in moves[0].values()])
    assert float(moved.norm()) == pytest.approx(0.02 * float(weights.norm()), rel=1e-4)


def test_saq_moves_weights_behind_the_quantiser_and_leaves_their_codes_alone(
    net: RobustNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, used = [], []
    original = nn.functional.conv2d

    def seen(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        used.append(weight.detach().clone())
        codes.append(net.first.weight_number(net.first.weight).encode(net.first.weight))
        return original(x, weight, *rest)

    monkeypatch.setattr(nn.functional, "conv2d", seen)
    gradients(net, objective="saq", rho=0.3)
    first, second = used[0], used[2]  # of the first layer, in the first pass and in the second
    number = net.first.weight_number(net.first.weight)
    assert torch.equal(first, number.decode(number.encode(first)))  # on the grid
    assert not torch.equal(second, number.decode(number.encode(second)))  # beside it
    assert all(torch.equal(other, codes[0]) for other in codes)


def test_saq_takes_the_gradient_at_the_moved_weights(net: RobustNet) -> None:
    judge, (images, labels) = robust_net(), hundred_digits()
    watching = Watching()
    with seen_through(watching, None):
        F.cross_entropy(judge(images), labels).backward()
    named = {f"{n}.bias": p for n, layer in quantized_layers(judge).items() if (p := layer.bias) is not None}
    named |= {n: p for n, p in judge.named_parameters() if ".norm." in n}
    parts = [*watching.gradients().values(), *(p.grad for p in named.values())]
    scale = 0.3 / torch.cat([part.flatten() for part in parts]).norm()
    shifts = {layer: g * scale for layer, g in watching.gradients().items()}
    with torch.no_grad():
        for parameter in named.values():
            parameter += scale * parameter.grad
    judge.zero_grad()
    with seen_through(Shifting(shifts), None):
        F.cross_entropy(judge(images), labels).backward()
    found = gradients(net, objective="saq", rho=0.3)
    for name, parameter in judge.named_parameters():
        assert torch.allclose(found[name], parameter.grad, rtol=1e-3, atol=1e-6), name


def test_randbet_takes_the_mean_of_the_gradients_without_and_with_errors(net: RobustNet) -> None:
    judge, (images, labels) = robust_net(), hundred_digits()
    clean = gradients(robust_net(), objective="qat")
    judge(images)  # measures ranges
    with inject(judge, FLIPS, chip=3, study="test"):
        F.cross_entropy(judge(images), labels).backward()
    found = gradients(net, objective="randbet", under=[FLIPS], loss_gate=1e9)
    for name, parameter in judge.named_parameters():
        assert torch.allclose(found[name], (clean[name] + parameter.grad) / 2, rtol=1e-4, atol=1e-7), name


def test_randbet_waits_until_the_clean_loss_is_below_the_gate(net: RobustNet) -> None:
    waiting = gradients(net, objective="randbet", under=[FLIPS], loss_gate=1e-6)
    assert same_bits(waiting, gradients(robust_net(), objective="qat"))


def test_the_worst_flips_do_more_harm_than_random_ones(net: RobustNet) -> None:
    images, labels = hundred_digits()
    net(images)
    net.eval()
    watching = Watching()
    with seen_through(watching, None):
        before = F.cross_entropy(net(images), labels)
    before.backward()
    flips = BitFlip(0.002, target="weights")
    shifts = worst_flips(net, watching.gradients(), flips)
    with torch.no_grad(), seen_through(Shifting(shifts), None):
        worst = F.cross_entropy(net(images), labels)
    random = []
    for chip in range(5):
        with torch.no_grad(), inject(net, flips, chip=chip):
            random.append(float(F.cross_entropy(net(images), labels)))
    assert float(worst) > max(random)
    flipped = sum(int((shift != 0).sum()) for shift in shifts.values())
    assert flipped == round(0.002 * 8 * 3784)


def test_each_shift_of_a_worst_flip_is_one_bit_of_the_code(net: RobustNet) -> None:
    watching = Watching()
    with seen_through(watching, None):
        F.cross_entropy(net(step().images), step().labels).backward()
    flips = 0
    for layer, shift in worst_flips(net, watching.gradients(), BitFlip(0.01, target="weights")).items():
        assert isinstance(layer, QuantizedLayer)
        number = layer.weight_number(layer.weight)
        codes = number.encode(layer.weight)
        faulty = number.encode(number.decode(codes) + shift)
        changed = (codes ^ faulty)[shift != 0] & 0xFF
        assert ((changed & (changed - 1)) == 0).all()
        assert (changed != 0).all()
        flips += changed.numel()
    assert flips == round(0.01 * 8 * 3784)


def test_weights_are_cut_off_after_every_step_where_the_objective_clips() -> None:
    for given, largest in (({"objective": "saq"}, 0.1), ({"objective": "qat", "clip": 0.05}, 0.05)):
        net = robust_net()
        run(TrainingSettings.model_validate({"epochs": 1, "batch_size": 32, **given}), net=net)
        weights = torch.cat([layer.weight.detach().flatten() for layer in quantized_layers(net).values()])
        assert weights.abs().max() == pytest.approx(largest)


@pytest.mark.parametrize(
    ("given", "faults", "largest"),
    [
        ({"objective": "ftt"}, (FLIPS,), 0.1),
        ({"objective": "ftt"}, (BitFlip(0.05, target="features"),), None),
        ({"objective": "ftt", "faults": []}, (FLIPS,), None),
        ({"objective": "ftt", "faults": ["weights.bit_flip:0.1"]}, (), 0.1),
        ({"objective": "qat"}, (FLIPS,), None),
        ({"objective": "saq"}, (), 0.1),
        ({"objective": "saq", "clip": "none"}, (FLIPS,), None),
        ({"objective": "qat", "clip": 0.3}, (), 0.3),
    ],
)
def test_weights_are_clipped_by_default_where_they_fail_in_training(
    given: dict[str, Any], faults: Any, largest: float | None
) -> None:
    assert TrainingSettings.model_validate(given).largest_weight(faults) == largest


def test_sharpness_changes_nothing_and_grows_with_the_radius(net: RobustNet) -> None:
    images, labels = hundred_digits()
    net(images)
    before, training = state(net), net.training
    found = [sharpness(net, images, labels, rho) for rho in (0.0, 0.1, 0.5)]
    assert found == sorted(found)
    assert found[0] == 0
    assert net.training == training
    assert same_bits(before, state(net))
    assert all(parameter.grad is None for parameter in net.parameters())


# Bad input


@pytest.mark.parametrize(
    ("given", "faults", "words"),
    [
        ({"objective": "randbet"}, (), "randbet needs training.faults"),
        ({"objective": "worst_bits"}, (), "worst_bits needs one fault"),
        ({"objective": "worst_bits"}, (FLIPS, FLIPS), "worst_bits needs one fault"),
        ({"objective": "worst_bits"}, (StuckBit(0.1, target="weights"),), "worst_bits needs one fault"),
    ],
)
def test_an_objective_without_its_faults_is_refused(given: dict[str, Any], faults: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_objective(settings(**given), faults, study="test")


def test_a_radius_that_is_too_large_stops_with_its_value_and_keeps_the_last_good_epoch(tmp_path: Any) -> None:
    checkpoint, seen = tmp_path / "checkpoint.safetensors", []
    given = settings(objective="saq", rho={0: 0.1, 0.5: 1e30}, epochs=4, batch_size=32)
    with pytest.raises(TrainingError, match=r"training\.rho: 1e\+30 makes weights and loss infinite in epoch [23];"):
        run(given, net=robust_net(), checkpoint=checkpoint, on_epoch=seen.append)
    good, records = run(given.model_copy(update={"epochs": len(seen)}), net=robust_net(), checkpoint=checkpoint)
    assert len(records) == len(seen) >= 2
    assert all(value.isfinite().all() for value in good.values())


@pytest.mark.parametrize("name", ["l1", "hoyer"])
def test_a_term_of_activations_needs_activations(name: str) -> None:
    bare = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    given = settings(objective="qat", sparsity={name: 1e-3})
    with pytest.raises(ConfigError, match=rf"training\.sparsity\.{name}: Sequential has no activation module"):
        train(bare, *hundred_digits(), settings=given, faults=(), key="test")
    assert isinstance(robust_net().activations[0], Activation)


def test_a_penalty_on_ranges_needs_learned_ranges(net: RobustNet) -> None:
    given = settings(objective="qat", range_penalty=0.1)
    with pytest.raises(ConfigError, match=r"training\.range_penalty: no weight of RobustNet has a learned range"):
        train(net, *hundred_digits(), settings=given, faults=(), key="test")
