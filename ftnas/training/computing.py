"""In what a training computes: precision, memory layout, and whether it is compiled."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ftnas.configuration import Section
from ftnas.distributed import ranks
from ftnas.errors import ConfigError
from ftnas.quantization import current_tap, quantized_layers
from ftnas.training.loss import Forward

Precision = Literal["float32", "tf32", "bf16"]
Compile = Literal["none", "default", "cuda_graphs"]

EXACT_BITS = 8  # of a code in bfloat16, whose fraction has eight with the leading one
COMPILED_OBJECTIVES = ("qat", "ftt", "randbet")
_MODES = {"default": "default", "cuda_graphs": "reduce-overhead"}


class ComputingSettings(Section):
    """In what convolutions and products are computed; numbers are quantised and stored as they are anyway.

    ``precision``: ``float32``; ``tf32``, factors rounded to 11 bits, on GPUs; ``bf16``, features and factors rounded to
    8 bits, which codes of up to 8 bits with power-of-two ranges fit exactly. ``channels_last``: the layout of feature
    maps, in which a training step takes less time; it changes the order of sums.
    """

    precision: Precision = "float32"
    channels_last: bool = True


def check_computing(
    section: str,
    settings: ComputingSettings,
    model: nn.Module | None,
    device: torch.device,
    *,
    compile: Compile = "none",
) -> None:
    """Refuse what cannot be computed on ``device``, or not as it says, by ``model`` where there is one yet.

    Raises:
        ConfigError: names the key of ``section``, its value and what is allowed.
    """
    precision = settings.precision
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError(f"{section}.precision: tf32 is for GPUs, the device is {device.type}; take float32 or bf16")
    if precision == "bf16" and model is not None:
        _check_codes(section, model)
    if compile == "cuda_graphs" and device.type != "cuda":
        raise ConfigError(f"{section}.compile: cuda_graphs is for GPUs, the device is {device.type}; take default")
    if compile != "none" and ranks().size > 1:
        raise ConfigError(f"{section}.compile: {compile} is for one process, here are {ranks().size}; take none")


def check_compile(compile: Compile, objective: str, *, is_sparse: bool) -> None:
    """Refuse to compile what never runs without a look at weights or activations, which no graph can have.

    Raises:
        ValueError: says what can be compiled.
    """
    if compile != "none" and (objective not in COMPILED_OBJECTIVES or is_sparse):
        allowed = ", ".join(COMPILED_OBJECTIVES)
        given = f"{objective} with sparsity" if is_sparse else objective
        raise ValueError(f"compile: {compile} is for the objectives {allowed} without sparsity, not for {given}")


def _check_codes(section: str, model: nn.Module) -> None:
    for path, layer in quantized_layers(model).items():
        for choice in layer.choices:
            bits = max(choice.weight_bits, choice.feature_bits)
            if choice.word in ("float32", "float16") or (choice.word == "integer" and bits > EXACT_BITS):
                held = choice.word if choice.word != "integer" else f"codes of {bits} bits"
                raise ConfigError(
                    f"{section}.precision: bf16 holds codes of at most {EXACT_BITS} bits, {path} has {held}; take "
                    "float32"
                )


def lay_out(model: nn.Module, settings: ComputingSettings) -> None:
    """Give the weights of ``model`` the layout of ``settings``; nets that ``place`` has placed are channels-last."""
    if not settings.channels_last:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def computed(model: nn.Module, precision: Precision, device: torch.device, *, compile: Compile = "none") -> Forward:
    """Return what computes logits ``[N, classes]`` as float32 with ``model``, for the passes of a training."""
    return in_precision(model if compile == "none" else _compiled(model, compile), precision, device)


def in_precision(forward: Forward, precision: Precision, device: torch.device) -> Forward:
    """Return ``forward`` computed in ``precision``, its result as float32."""
    if precision != "bf16":
        return forward

    def narrow(images: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return forward(images).float()

    return narrow


def _compiled(model: nn.Module, compile: Compile) -> Forward:
    """Return ``model`` compiled for clean passes; under a tap, as faults are, it is computed as ever."""
    # Isolated, since all nets of a search have the same code, of which only eight graphs are compiled otherwise.
    graph: Forward = torch.compile(  # type: ignore[call-overload]
        model, mode=_MODES[compile], dynamic=False, isolate_recompiles=True
    )

    def forward(images: Tensor) -> Tensor:
        if current_tap() is not None:
            logits: Tensor = model(images)
            return logits
        if compile == "cuda_graphs":
            torch.compiler.cudagraph_mark_step_begin()
        return graph(images)

    return forward
