"""Which layers faults hurt most."""

from __future__ import annotations

from collections.abc import Sequence

from ftnas.report import svg, wording
from ftnas.report.axes import WIDTH, Plot, Scale
from ftnas.report.results import Exposure, LayerExposure, Share, Vulnerability

MOST = 60  # layers in the drawing; a longer one would not fit a screen
ROW, TOP, BELOW, GAP = 19.0, 40.0, 32.0, 34.0
LEAST_POINTS = 1.0  # width of a scale, so that nets which nothing hurts look it


def shown_layers(found: Vulnerability) -> tuple[LayerExposure, ...]:
    """Return the layers that are drawn, in their order: all, or those whose failing changes most answers."""
    worst = sorted(found.layers, key=lambda layer: -layer.changed.mean)[:MOST]
    return tuple(layer for layer in found.layers if layer in worst)


def vulnerability_figure(found: Vulnerability) -> str:
    """Draw, for each layer, the accuracy lost and the answers changed when it fails alone, with intervals."""
    layers = shown_layers(found)
    left = 16 + max(svg.text_width(layer.name) for layer in layers)
    half = (WIDTH - left - GAP - 8) / 2
    height = TOP + ROW * len(layers) + BELOW
    lost = _plot([_lost(found, layer.accuracy) for layer in layers], left, half, height)
    changed = _plot([_percent(layer.changed) for layer in layers], left + half + GAP, half, height)
    parts = [*_frame(lost, "Accuracy lost (points)"), *_frame(changed, "Answers changed (%)")]
    for number, layer in enumerate(layers):
        y = TOP + ROW * (number + 0.5)
        parts.append(svg.text((left - 12, y + 4.2), layer.name, anchor="end"))
        words = f"{_words(found, layer, layer.name)}\n{_size(layer)}"
        parts.append(_bar(lost, y, _lost(found, layer.accuracy), words, colour=svg.WINNER))
        parts.append(_bar(changed, y, _percent(layer.changed), words, colour=svg.FRONT))
    return svg.document(WIDTH, height, "Vulnerability by layer", parts)


def together(found: Vulnerability) -> str:
    """Return in words what happens when all layers fail."""
    return _words(found, found.all, "all layers together").replace("\n", ", ")


def idle(found: Vulnerability) -> int:
    """Return how many layers change no answer on any chip."""
    return sum(layer.changed.mean == 0 for layer in found.layers)


Bar = tuple[float, float, float]  # value and the ends of its interval


def _lost(found: Vulnerability, share: Share) -> Bar:
    """Return the accuracy lost, in points; a gain is negative."""
    return 100 * (found.clean - share.mean), 100 * (found.clean - share.high), 100 * (found.clean - share.low)


def _percent(share: Share) -> Bar:
    return 100 * share.mean, max(0.0, 100 * share.low), 100 * share.high


def _plot(bars: Sequence[Bar], left: float, width: float, height: float) -> Plot:
    """Return a plot whose x scale holds every value, and of the intervals as much as twice the largest value."""
    largest = max(LEAST_POINTS, *(value for value, *_ in bars))
    high = min(max(high for *_, high in bars), 2 * largest)
    low = max(min(low for _, low, _ in bars), -largest)
    x = Scale(min(0.0, low) - 0.02 * largest, max(high, largest) * 1.04, left, left + width)
    return Plot(x, Scale(0, 1, height - BELOW, TOP))


def _frame(plot: Plot, label: str) -> list[str]:
    bottom, top = plot.y.start, plot.y.end
    parts = [svg.text((plot.x.start, top - 14), label, weight=600)]
    for tick in plot.x.ticks():
        x = plot.x(tick)
        parts.append(svg.line((x, top), (x, bottom), colour=svg.FAINT, opacity=0.8 if tick == 0 else 0.3))
        parts.append(svg.text((x, bottom + 18), f"{tick:g}", anchor="middle"))
    return parts


def _bar(plot: Plot, y: float, bar: Bar, words: str, *, colour: str) -> str:
    """Return a bar from 0 to the value, and over it the interval; where it goes on, it is cut off at the frame."""
    value, low, high = (min(max(plot.x(part), plot.x.start), plot.x.end) for part in bar)
    zero = plot.x(0)
    corners = [(zero, y - 5), (value, y - 5), (value, y + 5), (zero, y + 5)]
    parts = [svg.polygon(corners, colour=colour, opacity=0.45), svg.line((low, y), (high, y), colour=colour, width=1.3)]
    return svg.hover(words, *parts, svg.circle((value, y), 3, colour=colour))


def _words(found: Vulnerability, exposure: Exposure, name: str) -> str:
    points = 100 * (exposure.accuracy.mean - found.clean)
    kept = f"{wording.percent(exposure.accuracy.mean)} right ({points:+.1f} points)"
    return f"{name}: {kept}\n{wording.percent(exposure.changed.mean)} of the answers changed"


def _size(layer: LayerExposure) -> str:
    weights = f"{layer.weights:,} weights, " if layer.weights else ""
    return f"{layer.kind}, {layer.macs:,} multiply-accumulates, {weights}{layer.outputs:,} outputs"
