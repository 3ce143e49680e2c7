"""Hardware faults: what may fail, which parts fail on a chip, and a network that computes on it.

    with inject(model, "features.mac_bit_bias:1e-4", chip=3):
        model(images)

Knows quantised layers, but no network, data set or training.
"""

from ftnas.faults.chips import BLOCK, Chip, SitePlan, applies_to, sample_site
from ftnas.faults.injection import Count, Injection, inject
from ftnas.faults.models import (
    FAULTS,
    BitBias,
    BitFlip,
    BitwiseStuckCell,
    Fault,
    MacBitBias,
    StuckCell,
    parse_fault,
    with_rate,
)
from ftnas.faults.plans import Plan, draw_plan, load_plan, output_shapes, save_plan
from ftnas.faults.sites import Site, sites

__all__ = [
    "BLOCK",
    "FAULTS",
    "BitBias",
    "BitFlip",
    "BitwiseStuckCell",
    "Chip",
    "Count",
    "Fault",
    "Injection",
    "MacBitBias",
    "Plan",
    "Site",
    "SitePlan",
    "StuckCell",
    "applies_to",
    "draw_plan",
    "inject",
    "load_plan",
    "output_shapes",
    "parse_fault",
    "sample_site",
    "save_plan",
    "sites",
    "with_rate",
]
