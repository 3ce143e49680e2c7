"""What the neurons of a layered net fire for one image: a dot for each spike, a line for each neuron."""

from __future__ import annotations

from collections.abc import Sequence

from ftnas.report import svg

Spikes = Sequence[Sequence[bool]]  # [steps][neurons]

LEFT, TOP, STEP, LINE, GAP = 96.0, 64.0, 34.0, 4.4, 22.0
LARGEST_LINE = 14.0  # of layers with few neurons
FEW = 20


def layered_raster_figure(layers: Sequence[Spikes], title: str) -> str:
    """Draw the spikes of ``layers``, from the first hidden one to the output, below each other.

    Args:
        layers: of each layer whether a neuron fires, ``[steps][neurons]``.
        title: of the drawing.
    """
    steps = len(layers[0])
    end = LEFT + steps * STEP
    parts, y = [svg.text((24, 30), title, weight=600)], TOP
    for place, spikes in enumerate(layers):
        last = place + 1 == len(layers)
        part, y = _layer(spikes, y, end, "output" if last else f"layer {place}", svg.WINNER if last else svg.FRONT)
        parts += part
        y += GAP
    for step in range(steps):
        parts.append(svg.text((LEFT + (step + 0.5) * STEP, y), str(step), anchor="middle"))
    parts.append(svg.text(((LEFT + end) / 2, y + 22), "Step", anchor="middle", weight=600))
    return svg.document(max(end + 24, 60 + svg.text_width(title)), y + 36, title, parts)


def _layer(spikes: Spikes, top: float, end: float, name: str, colour: str) -> tuple[list[str], float]:
    """Return the marks of one layer, and where it ends."""
    neurons = len(spikes[0])
    line = LARGEST_LINE if neurons <= FEW else LINE
    bottom = top + neurons * line
    fired = sum(sum(step) for step in spikes)
    parts = [
        svg.text((LEFT - 12, (top + bottom) / 2), name, anchor="end", weight=600),
        svg.text((LEFT - 12, (top + bottom) / 2 + 15), f"{fired} spikes", anchor="end", size=11),
        *(svg.line((LEFT, y), (end, y), colour=svg.FAINT, width=0.8, opacity=0.5) for y in (top, bottom)),
    ]
    for step, row in enumerate(spikes):
        x = LEFT + (step + 0.5) * STEP
        places = [top + (neuron + 0.5) * line for neuron, fires in enumerate(row) if fires]
        parts += [svg.line((x - 9, y), (x + 9, y), colour=colour, width=min(line - 1, 3)) for y in places]
    return parts, bottom
