"""Models that cannot be quantised, or not all of them: said in one line that names the layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from faulty_net import state
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from ftnas.errors import FaultError
from ftnas.faults import expose, inject, quantize, sites
from ftnas.quantization import QuantizedLinear, quantized_layers

ROWS = torch.linspace(-1, 1, 60).view(10, 6)
IMAGES = torch.linspace(-1, 1, 600).view(4, 3, 5, 10)


class Net(nn.Module):
    """Two layers, and something that a test puts between them."""

    def __init__(self, between: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 2)
        self.norm = nn.BatchNorm1d(6)
        self.between = between or F.relu

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.between(self.first(x)))
        return logits


def test_layers_that_stay_float_are_named() -> None:
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 6), nn.LayerNorm(6), nn.LSTM(6, 4))
    with pytest.warns(UserWarning) as caught:
        copied = quantize(model, torch.arange(9).view(3, 3))
    message = "0 (Embedding), 2 (LayerNorm), 3 (LSTM): stay as they are, so that no fault reaches their parameters"
    assert [str(one.message) for one in caught] == [message]
    assert caught[0].filename == __file__
    assert list(quantized_layers(copied)) == ["1"]


def test_a_transposed_convolution_and_loose_parameters_are_named() -> None:
    model = Net()
    model.upsample, model.scale = nn.ConvTranspose2d(1, 1, 3), nn.Parameter(torch.ones(2))  # type: ignore[assignment]
    with pytest.warns(UserWarning, match=r"the model \(Net\), upsample \(ConvTranspose2d\): stay as they are"):
        expose(model)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize(
    "block", [nn.MultiheadAttention(6, 2), nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)], ids=["mha", "layer"]
)
def test_what_computes_with_its_childrens_weights_keeps_them(block: nn.Module) -> None:
    """Torch's attention never calls its output layer, and its fused path none of its layers."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.last = block, nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.block(x, x, x)[0] if isinstance(self.block, nn.MultiheadAttention) else self.block(x[None])[0]
            logits: Tensor = self.last(y)
            return logits

    model = Attention().eval()
    with pytest.warns(UserWarning, match=rf"^block \({type(block).__name__}\): stay as they are"):
        copied = quantize(model, ROWS, bits=16)
    assert [site.name for site in sites(copied)] == ["last.weight", "last.output"]
    assert torch.allclose(copied(ROWS), model(ROWS), atol=1e-3)


def test_a_layer_that_the_images_never_call_stays_float_and_is_named() -> None:
    model = Net()
    model.spare = nn.Conv2d(1, 1, 3)
    with pytest.warns(UserWarning, match="^spare: stay float, as the images never called them"):
        copied = quantize(model, ROWS)
    assert type(copied.spare) is nn.Conv2d
    assert len(sites(copied)) == 4


def test_a_subclass_that_computes_something_else_is_left_alone() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return self._conv_forward(input, self.weight - self.weight.mean(), self.bias)

    class Renamed(nn.Conv2d):
        """The same convolution under another name."""

    model = nn.Sequential(Standardised(3, 4, 3), Renamed(4, 4, 1))
    with pytest.warns(UserWarning, match=r"^0 \(Standardised\): stay as they are"):
        copied = quantize(model, IMAGES)
    assert list(quantized_layers(copied)) == ["1"]


def test_hooks_stay_with_the_model_and_are_not_called() -> None:
    model, calls = Net(), []
    model.first.register_forward_hook(lambda *_: calls.append("first"))
    model.register_forward_pre_hook(lambda *_: calls.append("model"))
    before = state(model, ROWS)
    with pytest.warns(UserWarning, match=r"^the model \(Net\), first \(Linear\): have hooks, which the copy has not"):
        quantize(model, ROWS)(ROWS)
    assert calls == []
    assert state(model, ROWS) == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
        lambda layer: parametrizations.weight_norm(layer),
        lambda layer: parametrizations.spectral_norm(layer),
    ],
    ids=["pruned", "weight norm", "spectral norm"],
)
def test_a_weight_that_is_computed_from_others_is_refused(spoil: Callable[[nn.Module], object]) -> None:
    model = Net()
    spoil(model.first)
    with pytest.raises(FaultError, match=r"^first \(\w*Linear\): its weight is not a plain parameter|cannot be copied"):
        quantize(model, ROWS)


def test_a_weight_of_another_type_is_refused() -> None:
    with pytest.raises(FaultError, match=r"^first \(Linear\): its weight is torch.float64, only torch.float32"):
        quantize(Net().double(), ROWS.double())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.ReLU()), "Sequential has no Conv1d, Conv2d, Conv3d or Linear layer to convert"),
        (nn.LSTM(6, 4), r"LSTM has no .* to convert; its weights are in the model \(LSTM\)"),
        (nn.Sequential(QuantizedLinear(6, 2)), "Sequential has no"),
        ("resnet18", "a torch.nn.Module is needed, got str"),
    ],
)
def test_a_model_with_nothing_to_convert_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(FaultError, match=message):
        quantize(model, ROWS)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.empty(0, 6), "images are needed for calibration, got none"),
        ([], "images are needed for calibration, got none"),
        (7, r"images must be a tensor \[N, \.\.\.\] or batches of such, got int"),
        ([{"x": ROWS}], "images must be .* got dict"),
        (torch.full((2, 6), torch.nan), "first: the images give results that are infinite or not a number"),
    ],
)
def test_impossible_images_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(FaultError, match=message):
        quantize(Net(), images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, r"weight_bits must be 2\.\.16, got 1"),
        ({"weight_bits": 0}, r"weight_bits must be 2\.\.16, got 0"),
        ({"feature_bits": 17}, r"feature_bits must be 2\.\.16, got 17"),
        ({"feature_range": "max_per_channel"}, "only weights have a range per channel"),
        ({"weight_range": "percentile"}, "unknown range 'percentile'; choose from"),
    ],
)
def test_impossible_numbers_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(FaultError, match=message):
        quantize(Net(), ROWS, **options)


@pytest.mark.parametrize("word", ["integer", "float64"])
def test_an_unknown_word_is_refused(word: str) -> None:
    with pytest.raises(FaultError, match=f"unknown word '{word}'; choose from float32, bfloat16, float16"):
        expose(Net(), word=word)  # type: ignore[arg-type]


def test_a_layer_reached_past_its_place_in_the_model_is_refused() -> None:
    class Hidden(Net):
        def __init__(self) -> None:
            super().__init__()
            self.steps = [self.first, F.relu, self.last]

        def forward(self, x: Tensor) -> Tensor:
            for step in self.steps:
                x = step(x)
            return x

    with pytest.raises(FaultError, match="first: the model calls it 1 times, the copy 0 times"):
        quantize(Hidden(), ROWS)


def test_a_model_that_asks_a_layer_for_what_the_copy_has_not_is_refused() -> None:
    class Asks(Net):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.last(self.norm(self.first(x)) * self.norm.weight)
            return logits

    with pytest.raises(FaultError, match=r"the converted copy of the model does not run: .*'Identity'.*'weight'"):
        quantize(Asks(), ROWS)


def test_a_model_that_answers_differently_every_time_is_refused() -> None:
    class Counting(Net):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x) + self.calls

    with pytest.raises(FaultError, match="the copy returns something else than the model"):
        quantize(Counting(), ROWS)


def test_noise_from_torchs_random_state_is_no_difference() -> None:
    model = Net(lambda y: F.dropout(y, 0.5, training=True))
    random_state = torch.random.get_rng_state()
    copied = quantize(model, ROWS, bits=16)
    assert torch.equal(torch.random.get_rng_state(), random_state)
    torch.manual_seed(1)
    expected = model(ROWS)
    torch.manual_seed(1)
    assert torch.allclose(copied(ROWS), expected, atol=1e-3)


def _read(y: Tensor) -> Tensor:
    return y if float(y.detach()[0, 0]) > -9 else -y


def _zero(y: Tensor) -> Tensor:
    y[0] = 0.0
    return y


@pytest.mark.parametrize("touch", [lambda y: y.add_(1), _zero, _read, F.relu], ids=["add", "set", "read", "relu"])
def test_batch_norm_stays_outside_where_something_else_touches_its_input(touch: Callable[[Tensor], Tensor]) -> None:
    class Touching(Net):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.last(self.norm(touch(self.first(x))))
            return logits

    model = Touching().eval()
    copied = expose(model, ROWS)
    assert quantized_layers(copied)["first"].norm is None
    with torch.no_grad():
        assert torch.equal(copied(ROWS), model(ROWS))


def test_asking_for_the_shape_of_a_result_is_not_reading_it() -> None:
    class Asking(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            logits: Tensor = self.last(self.norm(y).view(y.shape[0], y.size(1)))
            return logits

    assert quantized_layers(quantize(Asking(), ROWS))["first"].norm is not None


def test_a_model_that_changes_its_input_changes_no_images() -> None:
    class Normalising(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(1))

    images = ROWS.clone()
    quantize(Normalising(), images)
    assert torch.equal(images, ROWS)


def test_batch_norm_that_stays_outside_learns_nothing_from_faults() -> None:
    torch.manual_seed(0)
    norms = nn.BatchNorm1d(6), nn.BatchNorm1d(6, momentum=None)
    model = nn.Sequential(norms[0], nn.Linear(6, 6), nn.ReLU(), norms[1], nn.Linear(6, 2))
    copied = quantize(model, ROWS)
    before = state(copied, ROWS)
    with inject(copied, "weights.bit_flip:0.2"):
        copied(ROWS)
    assert state(copied, ROWS) == before
    copied(ROWS)
    model(ROWS)
    for place in (0, 3):
        assert int(copied[place].num_batches_tracked) == int(model[place].num_batches_tracked) == 1  # type: ignore
        assert torch.allclose(copied[place].running_mean, model[place].running_mean, atol=0.05)  # type: ignore
