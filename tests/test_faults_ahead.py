"""Drawing ahead: what hits an output is the same, whether or not the pass was foreseen."""

from __future__ import annotations

import contextvars
import copy
from collections.abc import Sequence

import pytest
import torch
from faulty_net import FEATURE_FAULTS, WEIGHT_FAULTS, Net, some_images, trained_net
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ftnas.errors import FaultError
from ftnas.faults import (
    BitBias,
    BitFlip,
    Chip,
    Fault,
    Flip,
    Gaussian,
    Injection,
    MacBitBias,
    Plan,
    ahead,
    draw_plan,
    explicit_plan,
    expose,
    inject,
    output_shapes,
)
from ftnas.faults.chips import SitePlan
from ftnas.faults.codes import MECHANISMS
from ftnas.faults.sites import Site
from ftnas.quantization import QuantizedConv2d, QuantizedSum, Word

OFTEN = BitBias(0.01, scope="all")


class Detour(Net):
    """A net that may take a second convolution on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.second = QuantizedConv2d(8, 8, 3)
        self.takes_it = True

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        y = self.second(y) if self.takes_it else y
        logits: Tensor = self.head(self.sum([y, self.body(y)]).mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def images() -> Tensor:
    return some_images()[:24]


def detour(images: Tensor) -> Detour:
    net = Detour().train()
    net(images)
    return net.eval()


def faulty(net: nn.Module, images: Tensor, source: Fault | Plan = OFTEN, *, first: int = 0, chip: int = 0) -> Tensor:
    with torch.no_grad(), inject(net, source, first_image=first, chip=0 if isinstance(source, Plan) else chip):
        logits: Tensor = net(images)
    return logits


def unforeseen(
    net: nn.Module, images: Tensor, source: Fault | Plan = OFTEN, *, first: int = 0, chip: int = 0
) -> Tensor:
    return faulty(copy.deepcopy(net), images, source, first=first, chip=chip)


@pytest.mark.parametrize("fault", FEATURE_FAULTS + WEIGHT_FAULTS, ids=str)
def test_every_pass_of_a_net_meets_the_same_faults_foreseen_or_not(fault: Fault, images: Tensor) -> None:
    net = trained_net()
    for chip in range(4):
        assert torch.equal(faulty(net, images, fault, chip=chip), unforeseen(net, images, fault, chip=chip))


@pytest.mark.parametrize("word", ["float32", "bfloat16"])
@pytest.mark.parametrize("fault", [fault for fault in FEATURE_FAULTS if MECHANISMS[type(fault)].words], ids=str)
def test_every_pass_on_float_words_meets_the_same_faults_foreseen_or_not(
    fault: Fault, word: Word, images: Tensor
) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3)]
    net = expose(nn.Sequential(*layers).eval(), images, word=word)
    if isinstance(fault, Gaussian):
        with pytest.raises(FaultError, match="relative to the range of fixed-point numbers"):
            faulty(net, images, fault)
        return
    for chip in range(4):
        ours, theirs = faulty(net, images, fault, chip=chip), unforeseen(net, images, fault, chip=chip)
        assert torch.equal(ours.nan_to_num(), theirs.nan_to_num())


@pytest.mark.parametrize("fault", [OFTEN, BitFlip(0.01, target="weights", scope="all")], ids=str)
def test_the_third_pass_draws_what_hits_all_of_it_at_its_first_layer(
    fault: Fault, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, drawn = trained_net(), list[str]()
    draw = Chip.site_plan

    def watched(chip: Chip, site: Site, fault: int, images: range | None = None) -> SitePlan:
        drawn.append(site.name)
        return draw(chip, site, fault, images)

    monkeypatch.setattr(Chip, "site_plan", watched)
    net.stem.register_forward_hook(lambda *_: drawn.append("the first layer is done"))
    passes = []
    for chip in range(3):
        drawn.clear()
        faulty(net, images, fault, chip=chip)
        passes.append(list(drawn))
    assert passes[0] == passes[1]
    assert passes[0].index("the first layer is done") == 1
    assert passes[2].index("the first layer is done") == len(passes[2]) - 1
    assert sorted(passes[0]) == sorted(passes[2])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([7, 8]), st.integers(0, 2), st.integers(0, 1)), max_size=8))
def test_passes_of_other_paths_batches_and_images_meet_their_own_faults(
    passes: Sequence[tuple[bool, int, int, int]],
) -> None:
    images = some_images()[:8]
    net = detour(images)
    for takes_it, size, first, chip in passes:
        net.takes_it = takes_it
        some = images[:size]
        assert torch.equal(faulty(net, some, first=first, chip=chip), unforeseen(net, some, first=first, chip=chip))


def test_layers_that_were_moved_or_replaced_between_passes_meet_the_faults_of_where_they_are(images: Tensor) -> None:
    net = detour(images)
    for _ in range(3):
        faulty(net, images)
    net.second, net.body = net.body, net.second
    for _ in range(3):
        assert torch.equal(faulty(net, images), unforeseen(net, images))
    net.second = QuantizedConv2d(8, 8, 3)
    net.train()(images)
    net.eval()
    assert torch.equal(faulty(net, images), unforeseen(net, images))


def test_a_layer_that_sums_up_more_than_before_fails_more_often(images: Tensor) -> None:
    net, often = nn.Sequential(QuantizedConv2d(3, 4, 3), QuantizedConv2d(4, 4, 3)), MacBitBias(1e-3)
    net.train()(images)
    net.eval()
    for _ in range(3):
        faulty(net, images, often)
    net[1].weight, net[1].padding = nn.Parameter(torch.randn(4, 4, 5, 5)), 2
    assert torch.equal(faulty(net, images, often), unforeseen(net, images, often))


def test_batches_of_one_injection_meet_their_own_faults(images: Tensor) -> None:
    net = trained_net()
    with torch.no_grad(), inject(net, OFTEN) as injection:
        for first in (0, 64, 64, 0, 128):
            injection.first_image = first
            assert torch.equal(net(images), unforeseen_beside(net, images, first))
        assert injection.counts["stem.output"].applied > 0


def unforeseen_beside(net: Net, images: Tensor, first: int) -> Tensor:
    """Return what a copy of ``net`` gives, in a context of its own, since an injection is active here."""
    return contextvars.Context().run(lambda: unforeseen(net, images, first=first))


def test_a_plan_without_a_layer_that_no_longer_runs_is_replayed(images: Tensor) -> None:
    net = detour(images)
    for chip in range(2):
        faulty(net, images, chip=chip)
    net.takes_it = False
    shapes = output_shapes(net, images)
    plan = draw_plan(net, OFTEN, images=range(len(images)), shapes=shapes)
    assert "second.output" not in {name for name, _ in plan.sites}
    assert torch.equal(faulty(net, images, plan), unforeseen(net, images))


def test_what_is_kept_ahead_is_limited(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    net, kept = trained_net(), list[int]()
    monkeypatch.setattr(ahead, "MOST_EVENTS", 1)
    begin = ahead.Ahead._begin

    def watched(self: ahead.Ahead, *arguments: object) -> None:
        begin(self, *arguments)  # type: ignore[arg-type]
        kept.append(len(self._drawn))

    monkeypatch.setattr(ahead.Ahead, "_begin", watched)
    for chip in range(4):
        assert torch.equal(faulty(net, images, chip=chip), unforeseen(net, images, chip=chip))
    assert max(kept) == 1


def test_a_layer_that_runs_twice_in_a_pass_meets_the_same_faults_each_time(images: Tensor) -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            y = self.body(self.body(y))
            logits: Tensor = self.head(QuantizedSum.total(self.sum, [y]).mean((2, 3)))
            return logits

    net = Twice().train()
    net(images)
    net.eval()
    for chip in range(4):
        assert torch.equal(faulty(net, images, chip=chip), unforeseen(net, images, chip=chip))


def test_a_plan_that_hits_no_weight_leaves_weights_alone(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    net = trained_net()
    flip = Flip("stem.output", 3, 1, image=2)
    plan = explicit_plan(net, [flip], shapes=output_shapes(net, images), images=len(images))
    monkeypatch.setattr(Injection, "_weight_hits", lambda *_: pytest.fail("no weight is hit"))
    with torch.no_grad(), inject(net, plan) as injection:
        net(images)
    assert injection.counts["stem.output"].applied == 1


def test_a_weight_that_changes_its_layout_meets_the_same_faults(images: Tensor) -> None:
    net = trained_net()
    layer = net.stem
    weight, number = layer.stored_weight(layer.weight.detach(), layer.quantization)
    with inject(net, BitFlip(0.1, target="weights")) as injection:
        plain = injection.weight(layer, weight.contiguous(), number)
        moved = injection.weight(layer, weight.to(memory_format=torch.channels_last), number)
    assert plain.stride() != moved.stride()
    assert not torch.equal(plain, weight)
    assert torch.equal(plain, moved)
