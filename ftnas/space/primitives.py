"""The operators an edge may apply, by name."""

from __future__ import annotations

from ftnas.errors import SpaceError

OPERATORS: tuple[str, ...] = (
    "none",
    "skip_connect",
    "max_pool_3x3",
    "avg_pool_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "relu_conv_bn_3x3",
    "relu_conv_bn_5x5",
    "conv_1x1",
)

_WEIGHTLESS = ("none", "max_pool_3x3", "avg_pool_3x3")


def has_numbers(operator: str, stride: int) -> bool:
    """Tell whether ``operator`` holds weights, and so whether its quantisation means anything.

    A skip is the identity at stride 1; at stride 2 it is two half-width 1x1 convolutions.

    Raises:
        SpaceError: there is no such operator.
    """
    if operator not in OPERATORS:
        raise SpaceError(f"unknown operator {operator!r}; choose from {', '.join(OPERATORS)}")
    return stride == 2 if operator == "skip_connect" else operator not in _WEIGHTLESS
