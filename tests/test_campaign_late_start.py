"""Late start: whatever the model does between its layers, the logits are those of the whole pass, to the bit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_nets import same_bits, state
from torch import Tensor, nn

from ftnas.campaign.late_start import Golden, LateStart
from ftnas.errors import CampaignError
from ftnas.faults import Flip, Injection, explicit_plan, inject, sites
from ftnas.networks import build_baseline
from ftnas.quantization import Blend, Quantization, QuantizedConv2d, QuantizedLinear, QuantizedSum
from ftnas.runtime import seeded

SHAPE = (3, 8, 8)


class InPlace(nn.Module):
    """Edits what its layers return, in four ways."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (QuantizedConv2d(c, 6, 3) for c in (3, 6, 6))
        self.fourth, self.head = QuantizedConv2d(6, 6, 1), QuantizedLinear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x), inplace=True)
        y = self.second(y)
        y[:, 2:4].clamp_(max=0.5)
        y = self.third(y)
        y.data.mul_(0.5)
        y = self.fourth(y)
        y += 0.25
        logits: Tensor = self.head(y.mean((2, 3)))
        return logits.sub_(logits.amax(1, keepdim=True))


class Twice(nn.Module):
    """Calls one layer twice, and reads the first layer's output at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.sum = QuantizedConv2d(3, 6, 3), QuantizedConv2d(6, 6, 3), QuantizedSum()
        self.head = QuantizedLinear(12, 5)
        self.never = QuantizedConv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        start = F.relu(self.stem(x))
        y = F.relu(self.body(F.relu(self.body(start))))
        y = self.sum([y, start[:, [1, 0, 2, 3, 4, 5]]])
        logits: Tensor = self.head(torch.cat([y.mean((2, 3)), self.stem(x).amax((2, 3))], 1))
        return logits


class Mixed(nn.Module):
    """Has layers without sites, parameters of its own, numpy and decisions between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.plain, self.second = QuantizedConv2d(3, 6, 3), nn.Conv2d(6, 6, 1), QuantizedConv2d(6, 6, 3)
        self.norm, self.scale = nn.GroupNorm(2, 6), nn.Parameter(torch.linspace(0.5, 1.5, 6)[:, None, None])
        self.third, self.head = QuantizedConv2d(6, 6, 1), QuantizedLinear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x * 2 + 1)
        y = self.plain(F.relu(y)) * self.scale
        y = self.norm(self.second(y))
        if y.abs().mean() > 1e6:
            y = -y
        y = torch.from_numpy(np.maximum(y.numpy(), 0))
        y = self.third(y)
        hidden = torch.tensor(y.tolist()).mean((2, 3))
        logits: Tensor = self.head(hidden)
        return logits


class Wary(nn.Module):
    """Reads an early layer only where a late one looks wrong, as no pass without faults does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = QuantizedConv2d(3, 6, 3), QuantizedConv2d(6, 6, 3)
        self.third, self.head = QuantizedConv2d(6, 6, 3), QuantizedLinear(6, 5)
        self.limit = 0.0

    def forward(self, x: Tensor) -> Tensor:
        early = F.relu(self.first(x))
        y = self.third(F.relu(self.second(early)))
        peak = float(y.abs().max())
        if self.training:
            self.limit = 1e9
        elif self.limit == 1e9:
            self.limit = peak
        y = y + early if peak > self.limit else y
        logits: Tensor = self.head(y.mean((2, 3)))
        return logits


class ByContent(nn.Module):
    """Takes another way for bright batches."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.head = QuantizedConv2d(3, 4, 3), QuantizedConv2d(3, 4, 1), QuantizedLinear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x) if x.mean() < 1 else self.other(F.relu(self.other(x)[:, :3], inplace=True))
        logits: Tensor = self.head(F.relu(y).mean((2, 3)))
        return logits


def sequence() -> nn.Module:
    return nn.Sequential(
        QuantizedConv2d(3, 6, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), QuantizedConv2d(6, 6, 3, stride=2), nn.SiLU(),
        nn.Dropout(0.5), nn.Flatten(), QuantizedLinear(24, 5),
    )  # fmt: skip


def resnet() -> nn.Module:
    return build_baseline("resnet20", width=0.25, image_shape=SHAPE, classes=5)


NETS: Mapping[str, Callable[[], nn.Module]] = {
    "resnet": resnet,
    "sequence": sequence,
    "in_place": InPlace,
    "twice": Twice,
    "mixed": Mixed,
    "wary": Wary,
    "by_content": ByContent,
}


@cache
def batch(brightness: float = 0.0) -> Tensor:
    return torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(1)) + brightness


def net(name: str) -> nn.Module:
    with seeded("late start"):
        model = NETS[name]()
        with torch.no_grad():
            for _ in range(2):
                model(batch())
            model(batch(3.0))
    return model.eval()


def flips(model: nn.Module) -> list[Flip]:
    """Return faults in every weight: the bits that do most and least."""
    weights = [site for site in sites(model) if site.kind == "weight"]
    few = len(weights) > 10
    elements, bits = (2,) if few else (1, 2), (7,) if few else (0, 6, 7)
    return [Flip(site.name, site.values // part - 1, bit) for site in weights for part in elements for bit in bits]


def whole(model: nn.Module, flip: Flip, x: Tensor) -> Tensor:
    with torch.no_grad(), inject(model, explicit_plan(model, [flip])):
        logits: Tensor = model(x)
        return logits


def late(model: nn.Module, golden: Golden, flip: Flip) -> Tensor:
    tap = Injection(model, explicit_plan(model, [flip]), first_image=0, gradient="masked")
    return golden.logits_with(tap, model.get_submodule(flip.site.removesuffix(".weight")))


@pytest.mark.parametrize(("name", "brightness"), [*((name, 0.0) for name in NETS), ("by_content", 3.0)])
def test_a_late_start_gives_the_logits_of_the_whole_pass(name: str, brightness: float) -> None:
    model, x = net(name), batch(brightness)
    with torch.no_grad():
        clean = model(x)
    start = LateStart(model, batch())
    golden = start.golden(x)
    assert torch.equal(golden.logits, clean)
    changed = 0
    # In both orders: what one fault leaves behind in a cache would show in the next.
    for flip in [*flips(model), *reversed(flips(model))]:
        expected = whole(model, flip, x)
        assert torch.equal(late(model, golden, flip), expected), flip
        changed += not torch.equal(expected, clean)
    assert changed > len(flips(model)) / 2


@pytest.mark.parametrize("name", NETS)
def test_neither_images_nor_model_change(name: str) -> None:
    model, x = net(name), batch().clone()
    before, random = state(model), torch.random.get_rng_state()
    golden = LateStart(model, x).golden(x)
    for flip in flips(model)[::5]:
        late(model, golden, flip)
    assert torch.equal(x, batch())
    assert same_bits(state(model), before)
    assert torch.equal(torch.random.get_rng_state(), random)


def computed(model: nn.Module, golden: Golden, flip: Flip) -> list[str]:
    """Return the operations that a late start runs on values."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and any(isinstance(a, Tensor) for a in args):
                seen.append(str(func))
            return result

    seen: list[str] = []
    with Watch():
        late(model, golden, flip)
    return seen


def test_before_the_fault_nothing_is_computed_not_even_activations() -> None:
    model = net("resnet")
    golden = LateStart(model, batch()).golden(batch())
    everything = computed(model, golden, Flip("layers.0.conv.weight", 0, 7))
    last = computed(model, golden, Flip("classifier.weight", 0, 7))
    assert sum("convolution" in name for name in everything) == 19
    assert sum("relu" in name for name in everything) == 19
    assert not any("convolution" in name or "relu" in name for name in last)


def test_a_layer_that_never_runs_changes_nothing() -> None:
    model = net("twice")
    golden = LateStart(model, batch()).golden(batch())
    assert late(model, golden, Flip("never.weight", 0, 7)) is golden.logits


def test_two_threads_may_start_late_at_once() -> None:
    model = net("in_place")
    start = LateStart(model, batch())
    expected = [whole(model, flip, batch()) for flip in flips(model)]
    found: dict[int, list[Tensor]] = {}

    def work(number: int) -> None:
        golden = start.golden(batch())
        found[number] = [late(model, golden, flip) for flip in flips(model)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert all(torch.equal(one, other) for one, other in zip(found[number], expected, strict=True))


def test_what_only_a_fault_makes_the_model_read_gets_its_values() -> None:
    model = net("wary")
    golden = LateStart(model, batch()).golden(batch())
    assert golden.dataflow.may_lack_values
    for flip in flips(model):
        late(model, golden, flip)
    assert not golden.dataflow.may_lack_values


class Extended(nn.Module):
    """Reads an early output behind torch's back, as an extension in another language may."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = QuantizedConv2d(3, 4, 3), QuantizedConv2d(4, 4, 3), QuantizedLinear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        with torch._C.DisableTorchFunctionSubclass(), torch.utils._python_dispatch._disable_current_modes():
            scale = y.mean()
        logits: Tensor = self.head(self.second(F.relu(y)).mean((2, 3)) * scale)
        return logits


def test_what_torch_does_not_see_is_found_out_before_anything_is_measured() -> None:
    model = Extended()
    model(batch())
    golden = LateStart(model.eval(), batch()).golden(batch())
    assert not golden.dataflow.may_lack_values
    for flip in flips(model):
        assert torch.equal(late(model, golden, flip), whole(model, flip, batch()))


class Random(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = QuantizedConv2d(3, 4, 3), QuantizedLinear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.dropout(self.conv(x), 0.5, training=True).mean((2, 3)))
        return logits


def test_a_model_that_draws_random_numbers_is_refused() -> None:
    model = Random()
    model(batch())
    with pytest.raises(CampaignError, match="random numbers in evaluation mode"):
        LateStart(model.eval(), batch())


class Blended(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.choices = (Quantization(), Quantization(weight_bits=4))
        self.conv = QuantizedConv2d(3, 4, 3, choices=self.choices)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv(x, Blend(self.choices, torch.tensor([0.5, 0.5]))).mean((2, 3))
        return logits


def test_a_mixture_of_quantisations_is_refused() -> None:
    model = Blended()
    model(batch())
    with pytest.raises(CampaignError, match="a mixture of quantisations"):
        LateStart(model.eval(), batch())


def test_an_error_of_the_model_is_not_hidden() -> None:
    model = net("sequence")
    golden = LateStart(model, batch()).golden(batch())
    model[3] = nn.Identity()
    with pytest.raises((RuntimeError, CampaignError)):
        late(model, golden, Flip("0.weight", 0, 7))
