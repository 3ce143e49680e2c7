"""Number formats, ranges and quantised layers. Knows nothing of faults, spaces or training."""

from ftnas.quantization.activations import RECTIFIERS, Activation, Rectifier, Term, rectified_with
from ftnas.quantization.choices import Quantization, Range
from ftnas.quantization.conversion import expose, quantize
from ftnas.quantization.converted import ConvertedLayer
from ftnas.quantization.copies import RedundantCopy, inputs_of
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
    weighted_layers,
)
from ftnas.quantization.normalisation import MOMENTUM, CleanBatchNorm, CleanBatchNorm2d
from ftnas.quantization.rounding import power_of_two_above, snap, snap_, snap_learned
from ftnas.quantization.storage import CodeHalf, Storage, WeightBound, WeightHalf, fixed_point, half_of, half_range
from ftnas.quantization.taps import Tap, Unchanging, current_tap, statistics_run, tapped

__all__ = [
    "MOMENTUM",
    "RECTIFIERS",
    "Activation",
    "Blend",
    "CleanBatchNorm",
    "CleanBatchNorm2d",
    "CodeHalf",
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
    "RedundantCopy",
    "Storage",
    "Tap",
    "Term",
    "Unchanging",
    "WeightBound",
    "WeightHalf",
    "Word",
    "assume_ranges",
    "current_tap",
    "expose",
    "fixed_point",
    "half_of",
    "half_range",
    "inputs_of",
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
    "weighted_layers",
]
