"""Quantising models of the user's: the same function, in fewer bits, and nothing of theirs changed."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from faulty_net import state
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from user_nets import MODELS, user_model

from ftnas.faults import expose, inject, output_shapes, quantize, sites
from ftnas.quantization import (
    ConvertedLayer,
    FixedPoint,
    FloatWord,
    QuantizedConv2d,
    Word,
    quantized_layers,
)
from ftnas.quantization.tracing import tensors_in

everyone = pytest.mark.parametrize("name", MODELS)


def answer(model: nn.Module, images: Tensor) -> Tensor:
    """Return all that ``model`` says of ``images`` as one row."""
    with torch.no_grad():
        return torch.cat([tensor.flatten() for tensor in tensors_in(model(images))])


def error(model: nn.Module, reference: nn.Module, images: Tensor) -> float:
    """Return the root mean square difference of two models, as a share of what the second one says."""
    expected = answer(reference, images)
    return float((answer(model, images) - expected).norm() / expected.norm())


@everyone
def test_every_layer_is_converted_with_the_batch_norm_that_alone_reads_it(name: str) -> None:
    model, images = user_model(name)
    layers = quantized_layers(quantize(model, images))
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    assert set(layers) == {path for path, module in model.named_modules() if isinstance(module, kinds)}
    assert {path for path, layer in layers.items() if layer.norm is not None} == set(MODELS[name][2])


@everyone
def test_sixteen_bits_compute_what_the_float_model_does(name: str) -> None:
    model, images = user_model(name)
    assert error(quantize(model, images, bits=16), model, images) < 1e-3


@everyone
def test_the_error_grows_as_bits_get_fewer(name: str) -> None:
    model, images = user_model(name)
    errors = [error(quantize(model, images, bits=bits), model, images) for bits in (10, 8, 6, 4)]
    assert errors == sorted(errors)
    assert errors[1] < 0.05
    assert errors[3] > 4 * errors[1]


@everyone
def test_a_copy_of_float32_words_computes_the_same_bits(name: str) -> None:
    model, images = user_model(name)
    assert torch.equal(answer(expose(model, images), images), answer(model, images))
    assert torch.equal(answer(expose(model), images), answer(model, images))


@everyone
@pytest.mark.parametrize("training", [True, False])
def test_nothing_of_the_users_is_changed(name: str, training: bool) -> None:
    model, images = user_model(name)
    model.train(training)
    before = state(model, images)
    copies = [quantize(model, images), expose(model, images, word="bfloat16")]
    assert state(model, images) == before
    for copied in copies:
        assert all(module.training == training for module in copied.modules())
        mine = {parameter.data_ptr() for parameter in model.parameters()}
        assert mine.isdisjoint(parameter.data_ptr() for parameter in copied.parameters())


@everyone
def test_a_copy_survives_its_state_in_a_copy_of_other_ranges(name: str) -> None:
    model, images = user_model(name)
    first, second = quantize(model, images), quantize(model, images.abs() * 0.1, bits=5, feature_range="power_of_two")
    assert not torch.equal(answer(first, images), answer(second, images))
    second.load_state_dict(first.state_dict())
    assert torch.equal(answer(first, images), answer(second, images))


@everyone
def test_a_copy_learns_through_its_grid(name: str) -> None:
    model, images = user_model(name)
    copied = quantize(model.train(), images)
    sum(t.square().mean() for t in tensors_in(copied(images))).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is not None for parameter in copied.parameters())
    assert all(float(layer.weight.grad.abs().sum()) > 0 for layer in quantized_layers(copied).values())  # type: ignore[union-attr]


@everyone
def test_faults_reach_every_layer_of_a_copy_and_leave_no_trace(name: str) -> None:
    model, images = user_model(name)
    copied = quantize(model, images).train()
    before = state(copied, images)
    with inject(copied, ["weights.bit_flip:0.2", "features.bit_flip:0.2:scope=all"]) as injection:
        copied(images)
    assert state(copied, images) == before
    assert {site.name for site in sites(copied)} == {
        name for name, count in injection.counts.items() if count.effective
    }


@everyone
def test_sites_know_the_work_and_the_bits_behind_them(name: str) -> None:
    model, images = user_model(name)
    copied = quantize(model, images, weight_bits=4, feature_bits=6)
    layers = dict(model.named_modules())
    for site in sites(copied):
        path, _, end = site.name.rpartition(".")
        layer: Any = layers[path]
        inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels // layer.groups
        assert site.macs_per_value == inputs * torch.Size(getattr(layer, "kernel_size", ())).numel()
        assert site.layer == ("linear" if isinstance(layer, nn.Linear) else "conv")
        assert site.bits == (4 if end == "weight" else 6)
        assert site.shape == (tuple(layer.weight.shape) if end == "weight" else None)
    shapes = output_shapes(copied, images[:2]) if name != "shared" else {}
    assert len(sites(copied, "*.output", shapes=shapes)) == len(quantized_layers(copied))


def test_results_that_are_never_negative_have_no_sign() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight.abs_()
        model[0].bias.abs_()
    images = torch.rand(50, 4)
    copied = quantize(model, images)
    numbers = [layer.feature_number() for layer in quantized_layers(copied).values()]
    largest = float(model[0](images).detach().max())
    assert numbers[0] == FixedPoint(8, largest / 256, signed=False)
    assert isinstance(numbers[1], FixedPoint) and numbers[1].signed


def test_ranges_are_the_largest_over_all_batches() -> None:
    model, images = user_model("dense")
    loader = DataLoader(TensorDataset(images, torch.arange(len(images))), batch_size=7, shuffle=True)
    random_state = torch.random.get_rng_state()
    by_batches, by_loader = quantize(model, list(images.split(10))), quantize(model, loader)
    assert torch.equal(torch.random.get_rng_state(), random_state)
    for copied in (by_batches, by_loader):
        assert torch.allclose(answer(copied, images), answer(quantize(model, images), images), atol=1e-6)


@pytest.mark.parametrize(
    "ranges", [("power_of_two_per_channel", "power_of_two"), ("max", "fixed(6)"), ("learned",) * 2]
)
def test_ranges_may_be_chosen(ranges: tuple[str, str]) -> None:
    model, images = user_model("residual")
    copied = quantize(model, images, bits=12, weight_range=ranges[0], feature_range=ranges[1])
    numbers = [layer.quantization for layer in quantized_layers(copied).values()]
    assert {(str(n.weight_range), str(n.feature_range), n.weight_bits) for n in numbers} == {(*ranges, 12)}
    assert error(copied, model, images) < 0.05
    copied.train()(images).sum().backward()


@pytest.mark.parametrize("word", ["bfloat16", "float16"])
def test_narrow_words_are_what_a_copy_computes_in(word: Word) -> None:
    model, images = user_model("residual")
    copied = expose(model, images, word=word)
    assert 0 < error(copied, model, images) < 0.03
    assert {site.number for site in sites(copied)} == {FloatWord(word)}
    assert {site.bits for site in sites(copied)} == {16}


def test_without_images_batch_norm_stays_outside() -> None:
    model, images = user_model("plain_cnn")
    copied = expose(model)
    assert all(layer.norm is None for layer in quantized_layers(copied).values())  # type: ignore[union-attr]
    before = state(copied.train(), images)
    with inject(copied, "weights.bit_flip:0.01"):
        copied(images)
    assert state(copied, images) == before


def test_a_copy_trains_as_one_of_our_own_layers_does() -> None:
    torch.manual_seed(0)
    ours = QuantizedConv2d(3, 4, 3)
    theirs = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
    theirs[0].weight.data.copy_(ours.weight.data)
    x = torch.randn(8, 3, 6, 6)
    copied = quantize(theirs, x, weight_range="power_of_two", feature_range="power_of_two")
    with torch.no_grad():
        copied[0].feature_limit.zero_()  # type: ignore[union-attr]
    for model in (ours, copied):
        model(x).square().sum().backward()
    assert torch.equal(copied[0].weight.grad, ours.weight.grad)  # type: ignore[union-attr, arg-type]
    assert torch.equal(copied[0].norm.running_mean, ours.norm.running_mean)  # type: ignore[union-attr]
    assert torch.equal(copied[0].feature_limit, ours.feature_limit)  # type: ignore[arg-type]


@everyone
def test_a_copy_can_itself_be_copied_and_pickled(name: str) -> None:
    model, images = user_model(name)
    copied = quantize(model, images)
    for again in (copy.deepcopy(copied), pickle.loads(pickle.dumps(copied))):
        assert torch.equal(answer(again, images), answer(copied, images))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", ["valid", "same", 1, (2, 0)])
def test_a_convolution_is_padded_as_torch_pads_it(mode: str, padding: Any) -> None:
    layer = nn.Conv2d(2, 4, (4, 3), padding=padding, padding_mode=mode, dilation=(1, 2), groups=2)
    images = torch.randn(3, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(answer(expose(layer), images), answer(layer, images))


def test_a_batch_norm_that_two_layers_share_stays_outside() -> None:
    class SharedNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.norm = nn.Linear(6, 4), nn.Linear(6, 4), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.norm(self.left(x))) + self.norm(self.right(x))

    model, rows = SharedNorm().eval(), torch.randn(20, 6)
    copied = expose(model, rows)
    assert all(layer.norm is None for layer in quantized_layers(copied).values())
    assert torch.equal(answer(copied, rows), answer(model, rows))


def test_tied_weights_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    copied = quantize(model, torch.randn(20, 6))
    assert copied[0].weight is copied[2].weight
    assert copied[0].weight is not model[0].weight


def test_a_module_in_two_places_is_one_layer() -> None:
    layer = nn.Linear(6, 6)
    copied = quantize(nn.Sequential(layer, nn.ReLU(), layer), torch.randn(20, 6))
    assert copied[0] is copied[2]
    assert [site.name for site in sites(copied)] == ["0.weight", "0.output"]


def test_a_model_may_be_one_layer() -> None:
    copied = quantize(nn.Linear(6, 6), torch.randn(20, 6))
    assert isinstance(copied, ConvertedLayer)
    assert [site.name for site in sites(copied)] == ["weight", "output"]


def test_a_layer_keeps_the_attributes_that_models_ask_for() -> None:
    model, images = user_model("plain_cnn")
    copied: Any = quantize(model, images)
    assert (copied[0].stride, copied[0].out_channels, copied[0].kernel_size) == ((2, 2), 8, (3, 3))
    assert copied[8].in_features == 96
