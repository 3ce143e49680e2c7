"""What can be named, each in a line: known without torch, so that completion answers at once.

The tables that do the work are elsewhere; a test holds these to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class FaultWords:
    """A fault model in words: what fails, in which hardware, and who described it."""

    what: str
    hardware: str
    source: str


@dataclass(frozen=True, slots=True)
class NetWords:
    """A baseline in words: what it is, and the paper that it comes from."""

    what: str
    source: str


_FTT_NAS = "Ning et al., arXiv 2003.10375"
_LOW_VOLTAGE = "Stutz et al., arXiv 2006.13977"
_SOFT_ERRORS = "Li et al., SC 2017"

FAULTS: Mapping[str, FaultWords] = {
    "weights.bit_flip": FaultWords("every stored bit flips on its own", "SRAM at low voltage", _LOW_VOLTAGE),
    "weights.stuck_bit": FaultWords(
        "every stored bit is stuck at 0 or 1", "weight memory with defects", "Hanif and Shafique, arXiv 2305.12590"
    ),
    "weights.directed_flip": FaultWords(
        "0 becomes 1 at one rate, 1 becomes 0 at another",
        "SRAM at low voltage whose cells lean to one side",
        "Stutz et al., arXiv 2104.08323",
    ),
    "weights.random_value": FaultWords(
        "a whole code becomes a random one", "wrong word read: decoder, bus", "Mahmoud et al., DSN-W 2020 (PyTorchFI)"
    ),
    "weights.stuck_cell": FaultWords(
        "a cell of a weight's differential pair is stuck (adSAF)", "RRAM crossbar of multi-level cells", _FTT_NAS
    ),
    "weights.bitwise_stuck_cell": FaultWords(
        "one such cell for each magnitude bit, each stuck on its own", "RRAM crossbar of binary cells", _FTT_NAS
    ),
    "weights.log_normal": FaultWords(
        "every weight is multiplied by exp(sigma z)",
        "RRAM: variation of conductance",
        "Eldebiky et al., arXiv 2211.14917",
    ),
    "weights.gaussian": FaultWords(
        "every weight gains noise in proportion to the layer's largest",
        "phase-change memory: programming noise",
        "Joshi et al., Nature Communications 11, 2020",
    ),
    "features.bit_flip": FaultWords(
        "every stored bit flips on its own", "feature buffers under radiation", _SOFT_ERRORS
    ),
    "features.stuck_bit": FaultWords(
        "every stored bit is stuck at 0 or 1",
        "output registers of a systolic array with defects",
        "Zhang et al., arXiv 1802.04657",
    ),
    "features.directed_flip": FaultWords(
        "0 becomes 1 at one rate, 1 becomes 0 at another",
        "feature buffers at low voltage whose cells lean to one side",
        "Stutz et al., arXiv 2104.08323",
    ),
    "features.random_value": FaultWords(
        "a whole code becomes a random one", "wrong word read: decoder, bus", "Mahmoud et al., DSN-W 2020 (PyTorchFI)"
    ),
    "features.bit_bias": FaultWords(
        "a value gains or loses one bit's weight (iBB)", "processing elements of an FPGA", _FTT_NAS
    ),
    "features.mac_bit_bias": FaultWords(
        "the same, once for each multiply-accumulate behind the value (MiBB)",
        "processing elements of an FPGA",
        _FTT_NAS,
    ),
    "features.pattern": FaultWords(
        "a point, row, channel or block of values is spoilt at once",
        "processing elements of a GPU or accelerator",
        "Bolchini et al., IEEE TC 2022 (CLASSES)",
    ),
    "features.gaussian": FaultWords(
        "every value gains noise in proportion to the range",
        "analogue multiply-accumulates: converter noise",
        "Rekhi et al., DAC 2019",
    ),
}

OPERATORS: Mapping[str, str] = {
    "none": "no connection",
    "skip_connect": "identity; at stride 2 two half-width 1x1 convolutions",
    "max_pool_3x3": "max pooling",
    "avg_pool_3x3": "average pooling",
    "sep_conv_3x3": "depthwise and pointwise convolution, twice",
    "sep_conv_5x5": "the same with 5x5",
    "dil_conv_3x3": "depthwise convolution with gaps (dilation 2), then pointwise",
    "dil_conv_5x5": "the same with 5x5",
    "relu_conv_bn_3x3": "dense convolution",
    "relu_conv_bn_5x5": "dense convolution",
    "conv_1x1": "bare 1x1 convolution: bias, no batch norm",
}

BASELINES: Mapping[str, NetWords] = {
    "resnet20": NetWords("ResNet-20 for small images, shortcuts without weights", "He et al., arXiv 1512.03385"),
    "resnet18": NetWords("ResNet-18 with a 3x3 stem, 1x1 shortcuts", "He et al., arXiv 1512.03385"),
    "vgg16": NetWords("VGG-16 with batch norm and one linear layer", "Simonyan and Zisserman, arXiv 1409.1556"),
    "mobilenet_v2": NetWords("MobileNet-V2 for small images", "Sandler et al., arXiv 1801.04381"),
    "w_ftt_net_20": NetWords("W-FTT-Net, found under weight faults, 20 channels", _FTT_NAS),
    "w_ftt_net_40": NetWords("the same with 40 channels", _FTT_NAS),
}

DATA_SETS: Mapping[str, str] = {
    "digits": "scikit-learn's 1,797 digits of 8x8, bundled",
    "cifar10": "CIFAR-10, from its official folder or archive",
    "npz": "your own arrays in an .npz file",
    "folder": "your own images in a folder of each class",
}

SPIKING_TASKS: Mapping[str, str] = {
    "iris": "3 flowers by 4 measures, 150 samples",
    "wine": "3 wines by 13 measures, 178 samples",
    "breast_cancer": "malignant or benign by 30 measures, 569 samples",
    "digits": "the digits as 64 features",
    "pole_balancing": "a pole on a cart, pushed left or right",
}

FORMATS: Mapping[str, str] = {
    "onnx": "ONNX with integer QuantizeLinear and DequantizeLinear",
    "pt2": "torch.export program",
    "safetensors": "weights and what rebuilds the net",
    "c": "integer tables and an integer-only program in C",
    "json": "integers of a spiking net",
    "nir": "a layered spiking net for other tools and neuromorphic chips",
    "tables": "neurons and synapses of a spiking net as CSV and C arrays",
    "drawing": "a spiking net as SVG and PNG",
    "raster": "what a spiking net fires for one sample, as SVG and PNG",
}


def space_names() -> tuple[str, ...]:
    """Return the names of the search spaces that come with ftnas."""
    packaged = _PACKAGE / "_search_spaces"
    folder = packaged if packaged.is_dir() else _PACKAGE.parent / "search_spaces"
    return tuple(path.stem for path in sorted(folder.glob("*.yaml")))
