"""Terms that are added to the loss: for sparse activations, small ranges, and layers that do not amplify."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ftnas.distributed import sharing
from ftnas.errors import ConfigError
from ftnas.quantization import Activation, Rectifier, Term, rectified_with, weighted_layers
from ftnas.runtime import evaluating
from ftnas.training.schedules import Number, value_at

# Modules whose output is 0 for half of all values, so that a net can have sparse activations.
RECTIFIERS = (Activation, nn.ReLU, nn.ReLU6)

PART = 8  # of a batch one such part is penalised


def mean_magnitude(values: Tensor) -> Tensor:
    """Return the gradient of mean |a| over all values (L1)."""
    return torch.full_like(values, 1 / values.numel())


def hoyer_square(values: Tensor) -> Tensor:
    """Return the gradient of (sum |a|)^2 / sum a^2, the mean over images (Yang et al., ICLR 2020).

    It counts values that are not 0, whatever their scale is: between 1 and as many as an image has.
    """
    of_image = tuple(range(1, values.dim()))  # not flattened, which would copy a map whose channels lie last
    squares = values.square().sum(of_image, keepdim=True).clamp_min(1e-12)
    ratio = values.sum(of_image, keepdim=True) / squares
    scale = 2 * ratio / len(values)
    return torch.addcmul(scale, values, -scale * ratio)


# By the activations of some images ``[n, ...]``, none below 0; where they are 0 the gradient does not count.
OF_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"l1": mean_magnitude, "hoyer": hoyer_square}


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
    for layer in weighted_layers(model).values():
        matrix = layer.weight.flatten(1)
        gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
        terms.append((gram - bound**2 * torch.eye(len(gram), device=gram.device)).square().sum())
    return torch.stack(terms).sum()


def weight_ranges(model: nn.Module) -> list[nn.Parameter]:
    """Return the trainable ends of weight ranges."""
    return [
        layer.learned_weight_limit
        for layer in weighted_layers(model).values()
        if hasattr(layer, "learned_weight_limit")
    ]


@dataclass(frozen=True)
class ActivationTerm:
    """Terms of the activations of a training step, summed over layers.

    They are taken on the first eighth of a batch, which is shuffled, so their mean is that of the whole batch. Where
    processes share the batch, only those that hold images of that eighth add something.
    """

    weights: Mapping[str, float]

    def gradient(self, y: Tensor) -> tuple[Tensor, int]:
        """Return the gradient by the first images of ``y`` ``[N, ...]``, and how many those are."""
        ranks = sharing()
        eighth = -(-len(y) * ranks.size // PART)
        images = min(max(eighth - ranks.first_image(len(y)), 0), len(y))
        if not images:
            return y[:0], 0
        # Each term is a mean over the images here, and gradients become the mean over processes.
        share = ranks.size * images / eighth
        found = [OF_ACTIVATIONS[name](y[:images]).mul_(weight * share) for name, weight in self.weights.items()]
        return (found[0] if len(found) == 1 else torch.stack(found).sum(0)), images


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
        if self.of_activations and not activations_of(model):
            kinds = ", ".join(kind.__name__ for kind in RECTIFIERS)
            names = ", ".join(f"sparsity.{name}" for name in self.of_activations)
            raise ConfigError(f"training.{names}: {type(model).__name__} has no activation module ({kinds})")
        if value_above_zero(self.ranges) and not weight_ranges(model):
            raise ConfigError(
                f"training.range_penalty: no weight of {type(model).__name__} has a learned range; "
                "take weight_range: learned"
            )

    @contextmanager
    def on_activations(self, model: nn.Module, time: float) -> Iterator[None]:
        """Let the forward passes of the block add the terms of activations to the loss, in their backward passes."""
        weights = {name: value_at(weight, time) for name, weight in self.of_activations.items()}
        weights = {name: weight for name, weight in weights.items() if weight}
        with watched(model, ActivationTerm(weights)) if weights else nullcontext():
            yield

    def of_weights(self, model: nn.Module, time: float) -> Tensor | None:
        """Return the sum of the terms of weights after the share ``time`` of the training; ``None`` if all weigh 0."""
        terms = []
        if amount := value_at(self.lipschitz, time):
            terms.append(amount * lipschitz_excess(model, lipschitz_bound(self.sigma)))
        if amount := value_at(self.ranges, time):
            terms.append(amount * torch.stack([limit.abs() for limit in weight_ranges(model)]).sum())
        return torch.stack(terms).sum() if terms else None


NO_PENALTIES = Penalties()


def value_above_zero(number: Number) -> bool:
    """Return whether ``number`` is ever more than 0."""
    return (number if isinstance(number, float | int) else number.highest) > 0


def activations_of(model: nn.Module) -> list[nn.Module]:
    """Return the activation modules of ``model``."""
    return [module for module in model.modules() if isinstance(module, RECTIFIERS)]


@contextmanager
def watched(model: nn.Module, term: Term) -> Iterator[None]:
    """Let the activations of ``model`` add ``term`` to the loss of the block's forward passes."""
    modules = activations_of(model)
    own = [module for module in modules if isinstance(module, Activation)]
    hooks = [module.register_forward_hook(_hook(term, module)) for module in modules if module not in own]
    for module in own:
        module.term = term
    try:
        yield
    finally:
        for module in own:
            module.term = None
        for hook in hooks:
            hook.remove()


def _hook(term: Term, module: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Return a hook for torch's own activations, which computes their output once more, with ``term``."""
    rectifier = Rectifier(6.0) if isinstance(module, nn.ReLU6) else Rectifier()
    return lambda _, inputs, output: rectified_with(term, inputs[0], rectifier)


@torch.no_grad()
def zero_share(model: nn.Module, images: Tensor) -> float:
    """Return the share of activations that are exactly 0 on ``images`` ``[N, ...]``, the mean over modules.

    Raises:
        ConfigError: the model has no activation module.
    """
    Penalties({"l1": 1.0}).check(model)
    shares: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: shares.append((output == 0).float().mean()))
        for module in activations_of(model)
    ]
    try:
        with evaluating(model):
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return float(torch.stack(shares).mean())
