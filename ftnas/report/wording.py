"""Numbers and genotypes as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ftnas.report.results import RateScore
from ftnas.space import KINDS, Genotype
from ftnas.space.genotype import Node

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(share: float, digits: int = 1) -> str:
    """Return a share as percent, such as ``93.1 %``."""
    return f"{100 * share:.{digits}f} %" if math.isfinite(share) else "not a number"


def interval(low: float, high: float) -> str:
    """Return the ends of an interval of shares, such as ``92.5 to 93.6 %``."""
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def plus_minus(mean: float, low: float, high: float) -> str:
    """Return a mean share and half of its interval in percent, such as ``93.1 ± 0.6``."""
    return f"{100 * mean:.1f} ± {50 * (high - low):.1f}"


def score(value: RateScore) -> str:
    """Return a score with its interval, for plain text."""
    return f"{percent(value.mean)} ({interval(value.low, value.high)})"


def rate(value: float) -> str:
    """Return a fault rate: plain from a thousandth on, below that as a multiple of a power of ten."""
    if value == 0 or value >= 1e-3:
        return f"{value:g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPT)
    digits = f"{float(mantissa):g}"
    return power if digits == "1" else f"{digits}×{power}"  # noqa: RUF001


def amount(value: float) -> str:
    """Return a count in three digits, such as ``1.25 M``."""
    for size, sign in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{sign}"
    return f"{value:.0f}"


def megaflops(flops: float) -> str:
    """Return FLOPs in millions, in three digits or to the whole."""
    millions = flops / 1e6
    return f"{millions:,.0f}" if millions >= 100 else f"{millions:#.3g}"


def kibibytes(bits: int) -> str:
    """Return a number of bits as KiB of storage."""
    return f"{bits / 8192:,.1f} KiB"


def duration(seconds: float) -> str:
    """Return a time as hours, minutes and seconds, the two largest that count."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def listing(words: Sequence[str]) -> str:
    """Join words as a sentence does: ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def cell_lines(genotype: Genotype) -> list[str]:
    """Return one line a node: what it sums, from where, and in which numbers."""
    lines = []
    for kind in KINDS:
        cell = genotype.cell(kind)
        lines += [f"{kind} {number}: {_node(node)}" for number, node in enumerate(cell, start=2)]
    return lines


def _node(node: Node) -> str:
    edges = []
    for edge in node:
        q = edge.quantization
        numbers = f"w{q.weight_bits} {q.weight_range}, f{q.feature_bits} {q.feature_range}"
        edges.append(edge.operator if edge.operator == "none" else f"{edge.operator}({edge.source}) [{numbers}]")
    return " + ".join(edges)
