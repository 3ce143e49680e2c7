"""Number formats, ranges and quantised layers. Knows nothing of faults, spaces or training."""

from ftnas.quantization.activations import RECTIFIERS, Activation, Rectifier, Term, rectified_with
from ftnas.quantization.choices import Quantization, Range
from ftnas.quantization.conversion import expose, quantize
from ftnas.quantization.converted import ConvertedLayer
from ftnas.quantization.copies import RedundantCopy, inputs_of
from ftnas.quantization.formats import FixedPoint, FloatWord, Number, Word
from ftnas.quantization.host import left_on_device, stays_on_device
from ftnas.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedSum
from ftnas.quantization.listing import assume_ranges, quantized_layers, set_momentum, weighted_layers
from ftnas.quantization.normalisation import MOMENTUM, CleanBatchNorm, CleanBatchNorm2d
from ftnas.quantization.quantized_layer import Blend, LayerKind, QuantizedLayer
from ftnas.quantization.rounding import power_of_two_above, snap, snap_, snap_learned
from ftnas.quantization.storage import CodeHalf, Storage, WeightBound, WeightHalf, fixed_point, half_of, half_range
from ftnas.quantization.taps import (
    Tap,
    Touched,
    Unchanging,
    all_is_computed,
    current_tap,
    skipped,
    statistics_run,
    tapped,
)

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
    "Touched",
    "Unchanging",
    "WeightBound",
    "WeightHalf",
    "Word",
    "all_is_computed",
    "assume_ranges",
    "current_tap",
    "expose",
    "fixed_point",
    "half_of",
    "half_range",
    "inputs_of",
    "left_on_device",
    "power_of_two_above",
    "quantize",
    "quantized_layers",
    "rectified_with",
    "set_momentum",
    "skipped",
    "snap",
    "snap_",
    "snap_learned",
    "statistics_run",
    "stays_on_device",
    "tapped",
    "weighted_layers",
]
