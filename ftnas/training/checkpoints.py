"""Checkpoints: model and optimiser as named tensors, progress as plain data. Nothing is pickled.

The file before the last is kept, so that a damaged one costs no more than the work between the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.errors import RunError
from ftnas.files import has_latest, previous_of, read_latest, read_tensors, write_tensors
from ftnas.untrusted import understood

Optimizers = Mapping[str, torch.optim.Optimizer]


def save_checkpoint(path: Path, model: nn.Module, optimizers: Optimizers, progress: Mapping[str, Any]) -> None:
    """Write everything that going on needs to ``path``, whole or not at all; the one before it stays beside it."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for key, optimizer in optimizers.items():
        tensors.update({f"{key}.{name}": tensor for name, tensor in _state(optimizer).items()})
    write_tensors(path, tensors, progress, previous=previous_of(path))


def has_checkpoint(path: Path) -> bool:
    """Return whether there is anything to go on from at ``path``."""
    return has_latest(path)


def remove_checkpoint(path: Path) -> None:
    """Remove what was kept at ``path``; nothing may be there."""
    path.unlink(missing_ok=True)
    previous_of(path).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors and the progress of the last good checkpoint at ``path``; see ``files.read_latest``.

    Raises:
        RunError: none is whole; all stay where they are.
    """
    return read_latest(path, read_tensors)


def load_checkpoint(path: Path, model: nn.Module, optimizers: Optimizers) -> Any:
    """Put the tensors of ``path`` back and return the progress saved with them; see ``read_checkpoint``.

    Raises:
        RunError: the file is not whole, or belongs to another model.
    """
    tensors, progress = read_checkpoint(path)
    if not isinstance(progress, dict):
        raise RunError(f"{path}: says nothing of the progress; delete it to train again")
    own = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict(own)
    except RuntimeError:
        raise RunError(f"{path}: belongs to another model; delete it to train again") from None
    with understood(path):
        for key, optimizer in optimizers.items():
            _restore(optimizer, {n.removeprefix(f"{key}."): t for n, t in tensors.items() if n.startswith(f"{key}.")})
    return progress


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": value
        for index, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def _restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = _parameters(optimizer)
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        if value.dim() and value.shape != parameter.shape:
            raise ValueError(f"{name} of parameter {index} has shape {list(value.shape)}")
        optimizer.state[parameter][name] = value.to(parameter.device) if value.dim() else value
