"""Hardware faults: what may fail, which parts fail on a chip, and a network that computes on it.

    net = quantize(my_float_model, calibration_images, bits=8)
    with inject(net, "features.mac_bit_bias:1e-4", chip=3):
        logits = net(images)

Knows quantised layers, but no network, data set or training.
"""

from ftnas.faults.chips import BLOCK, Chip, SitePlan, applies_to, sample_site
from ftnas.faults.compiled import CompiledNet
from ftnas.faults.explicit import Flip, explicit_plan, export_csv
from ftnas.faults.injection import Count, Injection, inject
from ftnas.faults.models import (
    BitBias,
    BitFlip,
    BitwiseStuckCell,
    DirectedFlip,
    Fault,
    Gaussian,
    Listed,
    LogNormal,
    MacBitBias,
    OutputPattern,
    RandomValue,
    StuckBit,
    StuckCell,
    with_rate,
)
from ftnas.faults.plans import Plan, draw_plan, load_plan, output_shapes, save_plan
from ftnas.faults.sites import Site, sites
from ftnas.faults.texts import FAULTS, parse_fault, parse_faults, parse_sweep
from ftnas.quantization import expose, quantize

__all__ = [
    "BLOCK",
    "FAULTS",
    "BitBias",
    "BitFlip",
    "BitwiseStuckCell",
    "Chip",
    "CompiledNet",
    "Count",
    "DirectedFlip",
    "Fault",
    "Flip",
    "Gaussian",
    "Injection",
    "Listed",
    "LogNormal",
    "MacBitBias",
    "OutputPattern",
    "Plan",
    "RandomValue",
    "Site",
    "SitePlan",
    "StuckBit",
    "StuckCell",
    "applies_to",
    "draw_plan",
    "explicit_plan",
    "export_csv",
    "expose",
    "inject",
    "load_plan",
    "output_shapes",
    "parse_fault",
    "parse_faults",
    "parse_sweep",
    "quantize",
    "sample_site",
    "save_plan",
    "sites",
    "with_rate",
]
