"""Terms that are added to the loss: for sparse activations, small ranges, and layers that do not amplify."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ftnas.errors import ConfigError
from ftnas.quantization import Activation, QuantizedLayer, quantized_layers
from ftnas.training.schedules import Number, value_at

# Modules whose output is 0 for half of all values, so that a net can have sparse activations.
RECTIFIED = (Activation, nn.ReLU, nn.ReLU6)


def mean_magnitude(activations: Sequence[Tensor]) -> Tensor:
    """Return the sum over layers of mean |a| (L1)."""
    return torch.stack([values.abs().mean() for values in activations]).sum()


def hoyer_square(activations: Sequence[Tensor]) -> Tensor:
    """Return the sum over layers of (sum |a|)^2 / sum a^2, the mean over images (Yang et al., ICLR 2020).

    It counts values that are not 0, whatever their scale is: between 1 and as many as an image has.
    """
    flat = [values.flatten(1) for values in activations]
    parts = [values.abs().sum(1).square() / values.square().sum(1).clamp_min(1e-12) for values in flat]
    return torch.stack([part.mean() for part in parts]).sum()


OF_ACTIVATIONS: Mapping[str, Callable[[Sequence[Tensor]], Tensor]] = {"l1": mean_magnitude, "hoyer": hoyer_square}


def lipschitz_bound(sigma: float) -> float:
    """Return the largest singular value that keeps log-normal weight variation from growing (arXiv 2211.14917).

    1 / (e^(s^2/2) + 3 sqrt((e^(s^2) - 1) e^(s^2))): mean and three deviations of the factor on a weight, inverted.
    """
    square = math.exp(sigma**2)
    return 1 / (math.sqrt(square) + 3 * math.sqrt((square - 1) * square))


def lipschitz_excess(model: nn.Module, bound: float) -> Tensor:
    """Return the sum over layers of ||W'W - bound^2 I||_F^2, W ``[out, in * kernel]``, but for a constant.

    The smaller of W'W and WW' is taken: their terms differ by bound^4 for each row more, so their gradients are one.
    """
    terms = []
    for layer in _weighted(model):
        matrix = layer.weight.flatten(1)
        gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
        terms.append((gram - bound**2 * torch.eye(len(gram), device=gram.device)).square().sum())
    return torch.stack(terms).sum()


def weight_ranges(model: nn.Module) -> list[nn.Parameter]:
    """Return the trainable ends of weight ranges."""
    return [layer.learned_weight_limit for layer in _weighted(model) if hasattr(layer, "learned_weight_limit")]


@dataclass(frozen=True)
class Penalties:
    """What is added to the loss, each term by its weight.

    Attributes:
        of_activations: weights of ``OF_ACTIVATIONS``, on the activations of the clean pass.
        lipschitz: weight of ``lipschitz_excess``, for log-normal variation of ``sigma``.
        sigma: see ``lipschitz_bound``.
        ranges: weight of the sum of learned weight ranges: a smaller range makes a faulty bit worth less.
    """

    of_activations: Mapping[str, Number] = field(default_factory=dict)
    lipschitz: Number = 0.0
    sigma: float = 0.5
    ranges: Number = 0.0

    def check(self, model: nn.Module) -> None:
        """Refuse a ``model`` that lacks what a term needs.

        Raises:
            ConfigError: it has no activation to keep sparse, or no learned weight range.
        """
        if self.of_activations and not rectified(model):
            kinds = ", ".join(kind.__name__ for kind in RECTIFIED)
            names = ", ".join(f"sparsity.{name}" for name in self.of_activations)
            raise ConfigError(f"training.{names}: {type(model).__name__} has no activation module ({kinds})")
        if value_above_zero(self.ranges) and not weight_ranges(model):
            raise ConfigError(
                f"training.range_penalty: no weight of {type(model).__name__} has a learned range; "
                "take weight_range: learned"
            )

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[list[Tensor]]:
        """Yield a list that the activations of the block's forward passes are put into, if any term wants them."""
        seen: list[Tensor] = []
        modules = rectified(model) if self.of_activations else []
        hooks = [module.register_forward_hook(lambda m, inputs, output: seen.append(output)) for module in modules]
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()

    def total(self, model: nn.Module, activations: Sequence[Tensor], time: float) -> Tensor | None:
        """Return the sum of all terms after the share ``time`` of the training; ``None`` if each has weight 0."""
        terms = []
        for name, weight in self.of_activations.items():
            if (amount := value_at(weight, time)) and activations:
                terms.append(amount * OF_ACTIVATIONS[name](activations))
        if amount := value_at(self.lipschitz, time):
            terms.append(amount * lipschitz_excess(model, lipschitz_bound(self.sigma)))
        if amount := value_at(self.ranges, time):
            terms.append(amount * torch.stack([limit.abs() for limit in weight_ranges(model)]).sum())
        return torch.stack(terms).sum() if terms else None


NO_PENALTIES = Penalties()


def value_above_zero(number: Number) -> bool:
    """Return whether ``number`` is ever more than 0."""
    return (number if isinstance(number, float | int) else number.highest) > 0


def rectified(model: nn.Module) -> list[nn.Module]:
    """Return the activation modules of ``model``."""
    return [module for module in model.modules() if isinstance(module, RECTIFIED)]


@torch.no_grad()
def zero_share(model: nn.Module, images: Tensor) -> float:
    """Return the share of activations that are exactly 0 on ``images`` ``[N, ...]``, the mean over modules.

    Raises:
        ConfigError: the model has no activation module.
    """
    watched = Penalties({"l1": 1.0})
    watched.check(model)
    was_training = model.training
    model.eval()
    try:
        with watched.watching(model) as seen:
            model(images)
    finally:
        model.train(was_training)
    return float(torch.stack([(values == 0).float().mean() for values in seen]).mean())


def _weighted(model: nn.Module) -> list[QuantizedLayer]:
    return [layer for layer in quantized_layers(model).values() if layer.kind != "sum"]
