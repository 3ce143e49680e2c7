"""Batch norm that faults cannot teach anything."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ftnas.distributed import gathered, sharing
from ftnas.quantization.taps import statistics_run

BATCH_NORM_EPSILON = 1e-5
MOMENTUM = 0.1


class CleanBatchNorm(_BatchNorm):
    """Batch norm of ``[N, C, ...]`` whose running statistics come from clean passes only.

    While a tap is active nothing is updated. In training the faulty batch is then normalised by its own mean and
    variance: by the clean batch's, taken as constants, the gradient no longer knows that the scale of a weight does
    not matter (ResNet-20 at a quarter of its width on digits, MiBB 3e-3, 20 epochs: 41 % instead of 74 %).
    Where several processes share a step, mean and variance are those of all their images.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input`` normalised."""
        if not self.training and self.running_mean is not None:
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(input, mean, variance, self.weight, self.bias, eps=self.eps)
        if not statistics_run():
            return normalised_by_batch(input, self.weight, self.bias, eps=self.eps)
        return super().forward(input) if sharing().size == 1 else self._shared(input)

    def _shared(self, input: Tensor) -> Tensor:
        """Return ``input`` normalised by the images of all processes, and note their statistics."""
        mean, variance = moments_of_all(input)
        if self.running_mean is not None and self.running_var is not None:
            count = sharing().size * input.numel() / input.shape[1]
            self._note(mean.detach(), variance.detach() * (count / (count - 1)))
        return _normalised(input, mean, variance, self.weight, self.bias, eps=self.eps)

    @torch.no_grad()
    def _note(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        for held, new in ((self.running_mean, mean), (self.running_var, variance)):
            # Without a momentum statistics are plain means over batches, as torch's own.
            share = (1 / self.num_batches_tracked).to(held) if self.momentum is None else self.momentum
            held.lerp_(new.to(held), share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of dimensions."""


class CleanBatchNorm2d(CleanBatchNorm):
    """That of our own nets, on ``[N, C, H, W]``."""

    def __init__(self, channels: int, *, affine: bool) -> None:
        super().__init__(channels, eps=BATCH_NORM_EPSILON, momentum=MOMENTUM, affine=affine)


def normalised_by_batch(x: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float) -> Tensor:
    """Return ``x`` ``[N, C, ...]`` normalised by its own mean and variance: where processes share a step, by all's."""
    if sharing().size == 1:
        return F.batch_norm(x, None, None, weight, bias, True, eps=eps)
    return _normalised(x, *moments_of_all(x), weight, bias, eps=eps)


def moments_of_all(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance ``[C]`` of ``x`` ``[N, C, ...]`` over all processes, each of which has N images.

    The variance is the mean of theirs and the variance of their means: sums of squares would cancel in float32.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, [0, *range(2, x.dim())], correction=0)
    means, variances = gathered(torch.stack([mean, variance])).unbind(1)
    whole = means.mean(0)
    return whole, variances.mean(0) + (means - whole).square().mean(0)


def _normalised(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float
) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2))
    slope = (variance + eps).rsqrt()
    slope = slope if weight is None else slope * weight
    y = (x - mean.view(shape)) * slope.view(shape)
    return (y if bias is None else y + bias.view(shape)).to(x.dtype)


def cleaned(norm: _BatchNorm) -> CleanBatchNorm:
    """Return a clean batch norm that holds the parameters, statistics and mode of ``norm``."""
    clean = CleanBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    clean._parameters, clean._buffers = norm._parameters, norm._buffers
    return clean.train(norm.training)


def is_plain_batch_norm(module: nn.Module) -> bool:
    """Return whether ``module`` is one of torch's own batch norms for one device."""
    return type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
