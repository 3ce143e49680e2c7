"""Injection: the same chip however the images come, the right gradients, and nothing of the user's changed."""

from __future__ import annotations

import copy
import hashlib
import itertools
import random
import threading
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ftnas.errors import FaultError
from ftnas.faults import (
    FAULTS,
    BitBias,
    BitFlip,
    Fault,
    MacBitBias,
    StuckCell,
    draw_plan,
    inject,
    parse_fault,
    sites,
)
from ftnas.quantization import (
    FixedPoint,
    Quantization,
    QuantizedConv2d,
    QuantizedLinear,
    QuantizedSum,
    Range,
    current_tap,
    quantized_layers,
)


class Net(nn.Module):
    """Two convolutions, a sum and a classifier, on 8x8 images."""

    def __init__(self, choices: tuple[Quantization, ...] = (Quantization(),)) -> None:
        super().__init__()
        self.stem = QuantizedConv2d(3, 8, 3, choices=choices)
        self.body = QuantizedConv2d(8, 8, 3, groups=2, choices=choices)
        self.sum = QuantizedSum(choices=choices)
        self.head = QuantizedLinear(8, 10, choices=choices)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        y = self.sum([y, self.body(y)])
        logits: Tensor = self.head(torch.relu(y).mean((2, 3)))
        return logits


IMAGES = 150
LEARNED = Quantization(weight_range=Range("learned"), feature_range=Range("learned"))
EVERY_FAULT = [parse_fault(f"{name}:0.05:scope=all") for name in FAULTS]
FEATURE_FAULTS = [fault for fault in EVERY_FAULT if fault.target == "features"]
WEIGHT_FAULTS = [fault for fault in EVERY_FAULT if fault.target == "weights"]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net(images: Tensor) -> Net:
    torch.manual_seed(0)
    model = Net()
    model(images)
    return model.eval()


class Probe:
    """One layer's output, made up, so that no convolution's rounding hides or shows a fault."""

    def __init__(self, shape: tuple[int, ...] = (8, 8, 8)) -> None:
        self.model = nn.Sequential(QuantizedConv2d(8, 8, 3))
        self.features = torch.randint(-128, 128, (IMAGES, *shape), generator=torch.Generator().manual_seed(1)) * 0.5
        self.number = FixedPoint(8, 0.5)

    def faulty(self, fault: Fault, batches: Iterable[range], *, channels_last: bool = False) -> Tensor:
        result = self.features.clone()
        for batch in batches:
            part = result[batch.start : batch.stop].clone()
            part = part.contiguous(memory_format=torch.channels_last) if channels_last else part
            with inject(self.model, fault, chip=7, first_image=batch.start) as injection:
                injection.output(self.model[0], part, self.number)
            result[batch.start : batch.stop] = part
        return result


def batches_of(size: int) -> list[range]:
    return [range(first, min(first + size, IMAGES)) for first in range(0, IMAGES, size)]


@pytest.mark.parametrize("fault", FEATURE_FAULTS, ids=str)
@pytest.mark.parametrize("size", [1, 7, 64, 100])
def test_a_chip_is_the_same_for_any_batch_split(fault: Fault, size: int) -> None:
    probe = Probe()
    whole = probe.faulty(fault, [range(IMAGES)])
    assert not torch.equal(whole, probe.features)
    assert torch.equal(probe.faulty(fault, batches_of(size)), whole)


@settings(max_examples=25)
@given(cuts=st.sets(st.integers(1, IMAGES - 1), max_size=5), order=st.randoms())
def test_a_chip_is_the_same_for_any_cuts_in_any_order(cuts: set[int], order: random.Random) -> None:
    probe, ends = Probe(), [0, *sorted(cuts), IMAGES]
    batches = [range(first, last) for first, last in itertools.pairwise(ends)]
    order.shuffle(batches)
    assert torch.equal(probe.faulty(BitBias(0.01), batches), probe.faulty(BitBias(0.01), [range(IMAGES)]))


def test_one_injection_may_be_told_where_each_batch_begins() -> None:
    probe = Probe()
    result = probe.features.clone()
    with inject(probe.model, BitBias(0.05), chip=7) as injection:
        for batch in batches_of(40):
            injection.first_image = batch.start
            injection.output(probe.model[0], result[batch.start : batch.stop], probe.number)
    assert torch.equal(result, probe.faulty(BitBias(0.05), [range(IMAGES)]))


@pytest.mark.parametrize("fault", FEATURE_FAULTS, ids=str)
def test_a_chip_is_the_same_in_any_memory_format(fault: Fault) -> None:
    probe = Probe()
    whole = [range(IMAGES)]
    assert torch.equal(probe.faulty(fault, whole, channels_last=True), probe.faulty(fault, whole))


@pytest.mark.parametrize("fault", WEIGHT_FAULTS, ids=str)
def test_a_faulty_weight_is_the_same_in_any_memory_format(fault: Fault, net: Net) -> None:
    twin = copy.deepcopy(net).to(memory_format=torch.channels_last)
    results = []
    for model in (net, twin):
        number = model.stem.weight_number(model.stem.weight)
        on_grid = number.decode(number.encode(model.stem.weight))
        with inject(model, fault) as injection:
            results.append(injection.weight(model.stem, on_grid, number))
    assert torch.equal(*results)
    assert not torch.equal(results[0], on_grid)


@pytest.mark.parametrize("fault", EVERY_FAULT, ids=str)
def test_the_same_chip_fails_alike_again_and_another_chip_or_study_fails_otherwise(
    fault: Fault, net: Net, images: Tensor
) -> None:
    def run(chip: int, study: str) -> Tensor:
        with inject(net, fault, chip=chip, study=study):
            return net(images)

    assert torch.equal(run(1, "a"), run(1, "a"))
    assert not torch.equal(run(1, "a"), run(2, "a"))
    assert not torch.equal(run(1, "a"), run(1, "b"))


def test_all_batches_meet_the_same_faulty_weights(net: Net, images: Tensor) -> None:
    with inject(net, StuckCell(0.1)):
        one, two = net(images), net(images)
    assert torch.equal(one, two)


@pytest.mark.parametrize("fault", EVERY_FAULT, ids=str)
def test_faults_at_rate_zero_change_nothing(fault: Fault, net: Net, images: Tensor) -> None:
    with inject(net, parse_fault(f"{fault.name}:0")) as injection:
        faulty = net(images)
    assert injection.counts == {}
    assert torch.equal(faulty, net(images))


def test_convolution_faults_leave_classifier_and_sums_alone(net: Net, images: Tensor) -> None:
    with inject(net, [BitBias(0.1), StuckCell(0.1)]) as injection:
        net(images)
    assert set(injection.counts) == {"stem.weight", "stem.output", "body.weight", "body.output"}


def test_faults_of_scope_all_reach_every_site(net: Net, images: Tensor) -> None:
    with inject(net, [BitFlip(0.1, "weights"), BitFlip(0.1, "features")]) as injection:
        net(images)
    assert set(injection.counts) == {site.name for site in sites(net)}


def test_another_model_in_the_block_is_not_hit(net: Net, images: Tensor) -> None:
    other = copy.deepcopy(net)
    clean = other(images)
    with inject(net, BitFlip(0.1)):
        assert torch.equal(other(images), clean)


def test_a_layer_that_was_moved_takes_the_faults_of_its_new_place(images: Tensor) -> None:
    model = nn.Sequential(QuantizedConv2d(3, 3, 1), QuantizedConv2d(3, 3, 1))
    model(images)
    model.eval()
    with inject(model, BitFlip(0.2)):
        model(images)
    moved = nn.Sequential(model[1], model[0])
    model[0], model[1] = moved[0], moved[1]
    with inject(model, BitFlip(0.2)):
        live = model(images)
    with inject(moved, BitFlip(0.2)):
        assert torch.equal(live, moved(images))


def test_faults_of_weights_and_features_act_together(net: Net, images: Tensor) -> None:
    together = ["weights.stuck_cell:0.05", "features.mac_bit_bias:1e-3"]
    with inject(net, together) as injection:
        both = net(images)
    with inject(net, together[0]):
        weights_only = net(images)
    assert not torch.equal(both, weights_only)
    assert injection.counts["stem.weight"].planned > 0
    assert injection.counts["stem.output"].planned > 0


@pytest.mark.parametrize("faults", [(BitBias(0.3), BitFlip(0.2, "features")), (BitFlip(0.2, "features"), BitBias(0.3))])
def test_feature_faults_act_in_the_order_of_the_list(faults: Sequence[Fault]) -> None:
    probe = Probe()
    expected = probe.features.clone()
    for index, fault in enumerate(faults):
        alone = [parse_fault(f"{other.name}:0") for other in faults]
        alone[index] = fault
        with inject(probe.model, alone, chip=7) as injection:
            injection.output(probe.model[0], expected, probe.number)
    result = probe.features.clone()
    with inject(probe.model, faults, chip=7) as injection:
        injection.output(probe.model[0], result, probe.number)
    assert torch.equal(result, expected)


def test_two_models_of_one_kind_fail_apart() -> None:
    probe = Probe()
    result = probe.features.clone()
    with inject(probe.model, [BitFlip(0.05, "features"), BitFlip(0.05, "features")]) as injection:
        injection.output(probe.model[0], result, probe.number)
    assert not torch.equal(result, probe.features)


def test_counts_say_how_many_codes_changed() -> None:
    probe = Probe()
    result = probe.features.clone()
    with inject(probe.model, BitBias(0.05)) as injection:
        injection.output(probe.model[0], result, probe.number)
    count = injection.counts["0.output"]
    assert count.effective == int((result != probe.features).sum())
    assert count.planned == count.applied >= count.effective > 0


def test_the_gradient_passes_unchanged_through_feature_faults(net: Net, images: Tensor) -> None:
    layer, slope = net.stem, torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(3))

    def gradients() -> tuple[Tensor, Tensor]:
        x = images.clone().requires_grad_()
        (layer(x) * slope).sum().backward()
        return x.grad, layer.weight.grad  # type: ignore[return-value]

    layer.zero_grad()
    clean = [gradient.clone() for gradient in gradients()]
    layer.zero_grad()
    with inject(net, BitBias(0.5)) as injection:
        faulty = gradients()
    assert injection.counts["stem.output"].effective > 0
    assert all(torch.equal(a, b) for a, b in zip(clean, faulty, strict=True))
    layer.zero_grad()


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_gradient_of_faulty_weights_is_masked_or_straight_through(
    net: Net, images: Tensor, channels_last: bool
) -> None:
    model = copy.deepcopy(net)
    model = model.to(memory_format=torch.channels_last) if channels_last else model
    slope = torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(3))

    def gradient() -> Tensor:
        model.zero_grad()
        (model.stem(images) * slope).sum().backward()
        return model.stem.weight.grad.clone()  # type: ignore[union-attr]

    clean, faults = gradient(), [StuckCell(0.1), BitFlip(0.01)]
    with inject(model, faults, gradient="straight_through"):
        assert torch.allclose(gradient(), clean, atol=1e-4)
    with inject(model, faults):
        masked = gradient()
    hit = torch.zeros(clean.numel(), dtype=torch.bool)
    for planned in draw_plan(model, faults).sites.values():
        if planned.site == "stem.weight":
            hit[planned.events.element] = True
    hit = hit.view(clean.shape)
    assert bool(hit.any())
    assert bool((masked[hit] == 0).all())
    assert torch.allclose(masked[~hit], clean[~hit], atol=1e-4)


@pytest.mark.parametrize("fault", EVERY_FAULT, ids=str)
def test_a_faulty_training_step_has_finite_gradients(fault: Fault, net: Net, images: Tensor) -> None:
    model = copy.deepcopy(net).train()
    with inject(model, fault):
        model(images).square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())  # type: ignore[union-attr]


def digest(*tensors: Tensor) -> str:
    return hashlib.sha256(b"".join(t.detach().contiguous().numpy().tobytes() for t in tensors)).hexdigest()


def state(model: nn.Module, images: Tensor) -> tuple[object, ...]:
    """Return everything that an injection might have changed."""
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
    modes = [m.training for m in model.modules()]
    randomness = (digest(torch.random.get_rng_state()), str(np.random.get_state()), random.getstate())
    values = {name: digest(tensor) for name, tensor in model.state_dict().items()}
    return digest(images), values, randomness, hooks, modes, [sorted(vars(m)) for m in model.modules()]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("choice", [Quantization(), LEARNED], ids=str)
def test_nothing_of_the_users_is_changed(choice: Quantization, fails: bool, training: bool, images: Tensor) -> None:
    model = Net((choice,)).train(training)
    before = state(model, images)
    try:
        with inject(model, EVERY_FAULT):
            model(images)
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert state(model, images) == before
    assert current_tap() is None


def test_a_clean_pass_after_an_injection_is_clean(net: Net, images: Tensor) -> None:
    clean = net(images)
    with inject(net, EVERY_FAULT):
        assert not torch.equal(net(images), clean)
    assert torch.equal(net(images), clean)


def test_two_threads_attack_one_model_at_once(net: Net, images: Tensor) -> None:
    def run(chip: int) -> Tensor:
        with inject(net, EVERY_FAULT, chip=chip), torch.no_grad():
            return net(images)

    expected = [run(chip) for chip in range(2)]
    results: list[list[Tensor]] = [[], []]
    barrier = threading.Barrier(2)

    def work(chip: int) -> None:
        barrier.wait()
        results[chip] += [run(chip) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(chip,)) for chip in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(runs) == 10 for runs in results)
    assert all(torch.equal(run, expected[chip]) for chip in range(2) for run in results[chip])


def test_a_second_injection_inside_the_first_is_refused(net: Net) -> None:
    with inject(net, []), pytest.raises(FaultError, match="give all fault models to one inject"), inject(net, []):
        pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"first_image": -1}, "first_image must be 0 or more, got -1"),
        ({"gradient": "none"}, "gradient must be one of masked, straight_through, got 'none'"),
        ({"faults": 0.1}, "a fault model or its text is needed"),
        ({"faults": "features.nothing:1"}, "unknown fault 'features.nothing'"),
        ({"model": nn.Linear(1, 1)}, "Linear has no quantised layer"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, object], said: str, net: Net) -> None:
    given_arguments = {"model": net, "faults": MacBitBias(0.1), **arguments}
    with pytest.raises(FaultError, match=said), inject(**given_arguments):  # type: ignore[arg-type]
        pass


def test_sites_are_the_weights_and_outputs_of_quantised_layers(net: Net) -> None:
    found = {site.name: site for site in sites(net)}
    expected = {f"{path}.output" for path in quantized_layers(net)} | {"stem.weight", "body.weight", "head.weight"}
    assert set(found) == expected
    assert {found[name].layer for name in found} == {"conv", "linear", "sum"}
    assert found["body.weight"].shape == (8, 4, 3, 3)
    assert found["body.output"].macs_per_value == 36
    assert found["sum.output"].macs_per_value == 0
    assert found["head.output"].macs_per_value == 8


def test_a_pattern_chooses_sites(net: Net) -> None:
    assert [site.name for site in sites(net, "*.weight")] == ["stem.weight", "body.weight", "head.weight"]


def test_a_pattern_that_matches_none_is_an_error_that_names_it(net: Net) -> None:
    with pytest.raises(FaultError, match=r"pattern 'stems\.\*' matches no fault site"):
        sites(net, "stems.*")


def test_the_site_of_an_output_has_a_format_once_its_range_is_measured(net: Net) -> None:
    assert all(site.number is None for site in sites(Net(), "*.output"))
    assert all(site.number is not None for site in sites(net))
