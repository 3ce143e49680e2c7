"""Number formats, ranges and quantised layers. Knows nothing of faults, spaces or training."""

from ftnas.quantization.activations import RECTIFIERS, Activation, Rectifier, Term, rectified_with
from ftnas.quantization.choices import Quantization, Range
from ftnas.quantization.conversion import expose, quantize
from ftnas.quantization.converted import ConvertedLayer
from ftnas.quantization.formats import FixedPoint, FloatWord, Number, Word
from ftnas.quantization.layers import (
    Blend,
    LayerKind,
    QuantizedConv2d,
    QuantizedLayer,
    QuantizedLinear,
    QuantizedSum,
    assume_ranges,
    quantized_layers,
    set_momentum,
)
from ftnas.quantization.normalisation import MOMENTUM, CleanBatchNorm, CleanBatchNorm2d
from ftnas.quantization.rounding import power_of_two_above, snap, snap_, snap_learned
from ftnas.quantization.taps import Tap, current_tap, statistics_run, tapped

__all__ = [
    "MOMENTUM",
    "RECTIFIERS",
    "Activation",
    "Blend",
    "CleanBatchNorm",
    "CleanBatchNorm2d",
    "ConvertedLayer",
    "FixedPoint",
    "FloatWord",
    "LayerKind",
    "Number",
    "Quantization",
    "QuantizedConv2d",
    "QuantizedLayer",
    "QuantizedLinear",
    "QuantizedSum",
    "Range",
    "Rectifier",
    "Tap",
    "Term",
    "Word",
    "assume_ranges",
    "current_tap",
    "expose",
    "power_of_two_above",
    "quantize",
    "quantized_layers",
    "rectified_with",
    "set_momentum",
    "snap",
    "snap_",
    "snap_learned",
    "statistics_run",
    "tapped",
]
