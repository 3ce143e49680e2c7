"""A layered spiking net as a drawing: a column for each layer, and the strongest synapses into each of its neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ftnas.report import svg

LEFT, TOP, ACROSS, HEIGHT = 90.0, 96.0, 190.0, 440.0
SHOWN = 64  # neurons of a layer, evenly chosen of more
STRONGEST = 2  # synapses into a neuron
EXCITING, INHIBITING = svg.FRONT, svg.WINNER


@dataclass(frozen=True)
class DrawnLayer:
    """What is shown of a layer.

    Attributes:
        name: above its column.
        words: below the name, a line each.
        neurons: or channels.
        strongest: of each neuron its strongest synapses as (sending neuron, weight); none of the input.
    """

    name: str
    words: tuple[str, ...]
    neurons: int
    strongest: Sequence[Sequence[tuple[int, float]]]


def layered_figure(layers: Sequence[DrawnLayer], title: str) -> str:
    """Draw ``layers``, the input first.

    A blue synapse excites, a red one inhibits, a thick one has a large weight; point at one to read its numbers.
    """
    places = [_places(layer, LEFT + column * ACROSS) for column, layer in enumerate(layers)]
    parts = [svg.text((24, 30), title, weight=600)]
    for column in range(1, len(layers)):
        parts += _synapses(layers[column], places[column - 1], places[column])
    for column, layer in enumerate(layers):
        parts += _column(layer, places[column], LEFT + column * ACROSS, colour=_colour(column, len(layers)))
    width = max(2 * LEFT + (len(layers) - 1) * ACROSS, 60 + svg.text_width(title))
    return svg.document(width, TOP + HEIGHT + 48, title, parts)


def _colour(column: int, columns: int) -> str:
    return svg.INK if column == 0 else svg.FRONT if column + 1 == columns else svg.HAND


def _places(layer: DrawnLayer, x: float) -> dict[int, svg.Point]:
    """Return where the neurons are that are shown."""
    count = min(layer.neurons, SHOWN)
    chosen = [round(place * (layer.neurons - 1) / max(1, count - 1)) for place in range(count)]
    apart = min(26.0, HEIGHT / count)
    first = TOP + HEIGHT / 2 - apart * (count - 1) / 2
    return {neuron: (x, first + apart * place) for place, neuron in enumerate(chosen)}


def _synapses(layer: DrawnLayer, before: dict[int, svg.Point], places: dict[int, svg.Point]) -> list[str]:
    largest = max((abs(weight) for row in layer.strongest for _, weight in row), default=0.0) or 1.0
    parts = []
    for neuron, at in places.items():
        for source, weight in layer.strongest[neuron]:
            if source in before:
                share = abs(weight) / largest
                colour = EXCITING if weight >= 0 else INHIBITING
                drawn = svg.line(before[source], at, colour=colour, width=0.4 + 1.6 * share, opacity=0.25 + 0.5 * share)
                parts.append(svg.hover(f"{source} to {neuron}: weight {weight:.3g}", drawn))
    return parts


def _column(layer: DrawnLayer, places: dict[int, svg.Point], x: float, *, colour: str) -> list[str]:
    left_out = layer.neurons - len(places)
    words = (*layer.words, *((f"{left_out:,} not shown",) if left_out else ()))
    parts = [svg.text((x, 54), layer.name, anchor="middle", weight=600)]
    heights = [70.0, *(TOP + HEIGHT + 22 + 14 * row for row in range(len(words) - 1))]
    parts += [svg.text((x, y), line, anchor="middle", size=11) for y, line in zip(heights, words, strict=True)]
    radius = 6.0 if len(places) <= 20 else 3.0
    dots = {neuron: svg.circle(at, radius, colour=colour) for neuron, at in places.items()}
    return parts + [svg.hover(f"{layer.name}, {neuron}", dot) for neuron, dot in dots.items()]
