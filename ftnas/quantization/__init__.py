"""Number formats, ranges and quantised layers. Knows nothing of faults, spaces or training."""

from ftnas.quantization.choices import Quantization, Range
from ftnas.quantization.formats import FixedPoint
from ftnas.quantization.layers import (
    MOMENTUM,
    Blend,
    CleanBatchNorm2d,
    QuantizedConv2d,
    QuantizedLayer,
    QuantizedLinear,
    QuantizedSum,
    quantized_layers,
    set_momentum,
)
from ftnas.quantization.rounding import power_of_two_above, snap, snap_, snap_learned
from ftnas.quantization.taps import Tap, current_tap, tapped

__all__ = [
    "MOMENTUM",
    "Blend",
    "CleanBatchNorm2d",
    "FixedPoint",
    "Quantization",
    "QuantizedConv2d",
    "QuantizedLayer",
    "QuantizedLinear",
    "QuantizedSum",
    "Range",
    "Tap",
    "current_tap",
    "power_of_two_above",
    "quantized_layers",
    "set_momentum",
    "snap",
    "snap_",
    "snap_learned",
    "tapped",
]
