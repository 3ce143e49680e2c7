"""A net and images on which a campaign takes a moment, and what must not change by one."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import numpy as np
import torch
from small_nets import SmallNet, digits, small_net
from torch import Tensor, nn

from ftnas.runtime import seeded

IMAGES = 60


@cache
def calibrated() -> SmallNet:
    """Return an untrained net whose ranges are known, in evaluation mode. Not to be changed."""
    model = small_net(width=4)
    with seeded("calibration"), torch.no_grad():
        model(digits().train_images[:200])
    return model.eval()


@cache
def data() -> tuple[Tensor, Tensor]:
    return digits().test_images[:IMAGES], digits().test_labels[:IMAGES]


def lines(folder: Path, name: str = "records.jsonl") -> list[bytes]:
    return (folder / name).read_bytes().splitlines(keepends=True)


def fingerprint(model: nn.Module, *tensors: Tensor) -> tuple[object, ...]:
    """Return everything of the user's that a campaign might change."""
    values = {name: (tensor.numpy().tobytes(), tensor._version) for name, tensor in model.state_dict().items()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
    modes = [module.training for module in model.modules()]
    attributes = [sorted(vars(module)) for module in model.modules()]
    state = (torch.random.get_rng_state().numpy().tobytes(), str(np.random.get_state()), random.getstate())
    gradients = [parameter.grad is None and parameter.requires_grad for parameter in model.parameters()]
    given = [(tensor.numpy().tobytes(), tensor._version) for tensor in tensors]
    return values, hooks, modes, attributes, state, gradients, given, torch.is_grad_enabled(), torch.get_num_threads()
