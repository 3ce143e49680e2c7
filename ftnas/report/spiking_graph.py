"""A spiking graph as a drawing, and what its neurons fire as a raster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftnas.report import svg
from ftnas.spiking.graph.genome import Genome, Synapse

EXCITING, INHIBITING = svg.FRONT, svg.WINNER
LEFT, TOP, ROW, WIDTH = 110.0, 70.0, 30.0, 720.0
RADIUS = 9.0
POINTS = 16  # of a curve
STEP, LINE = 18.0, 20.0  # of a raster


def graph_figure(net: Genome, weight_max: int, title: str) -> str:
    """Draw ``net``: inputs that lead somewhere at the left, hidden neurons, outputs at the right.

    A blue synapse excites, a red one inhibits, a thick one has a large weight; point at one to read its numbers.
    """
    places = _places(net)
    rows = max(len(column) for column in _columns(net))
    parts = [svg.text((24, 30), title, weight=600), *_captions(net)]
    parts += [_synapse(synapse, places, weight_max) for synapse in net.synapses]
    parts += [_neuron(net, node, at) for node, at in places.items()]
    return svg.document(WIDTH, TOP + rows * ROW + 20, title, parts)


def name_of(net: Genome, node: int) -> str:
    """Return what a neuron is called: an input by its feature and side, an output by its class."""
    if node < net.inputs:
        return f"x{node // 2}{'-+'[node % 2]}"
    return f"out {node - net.inputs}" if node < net.first_hidden else f"h{node - net.first_hidden}"


def raster_figure(
    net: Genome, inputs: Sequence[Sequence[bool]], fired: Mapping[int, Sequence[bool]], title: str
) -> str:
    """Draw a mark for every spike: a line for each input that leads somewhere, hidden neuron and output.

    Args:
        net: whose neurons they are.
        inputs: ``[steps, inputs]``.
        fired: of each other neuron, whether it fires in each step.
        title: of the drawing.
    """
    lines: list[tuple[int, Sequence[bool]]] = [(node, [step[node] for step in inputs]) for node in _read_inputs(net)]
    lines += [(node, fired[node]) for node in (*net.hidden, *range(net.inputs, net.first_hidden))]
    width, steps = LEFT + len(inputs) * STEP + 24, len(inputs)
    parts = [svg.text((24, 30), title, weight=600)]
    for row, (node, spikes) in enumerate(lines):
        y = TOP + row * LINE
        colour = svg.INK if node < net.inputs else svg.HAND if node >= net.first_hidden else svg.FRONT
        parts.append(svg.text((LEFT - 12, y + 4), name_of(net, node), anchor="end"))
        parts.append(svg.line((LEFT, y), (LEFT + steps * STEP, y), colour=svg.FAINT, width=0.8, opacity=0.4))
        parts += [_spike(LEFT + (step + 0.5) * STEP, y, colour) for step, spike in enumerate(spikes) if spike]
    below = TOP + len(lines) * LINE + 4
    for step in range(0, steps, 4):
        parts.append(svg.text((LEFT + (step + 0.5) * STEP, below + 10), str(step), anchor="middle"))
    parts.append(svg.text((LEFT + steps * STEP / 2, below + 30), "Step", anchor="middle", weight=600))
    return svg.document(max(width, 60 + svg.text_width(title)), below + 44, title, parts)


def _spike(x: float, y: float, colour: str) -> str:
    return svg.line((x, y - 7), (x, y + 7), colour=colour, width=2.4)


def _read_inputs(net: Genome) -> list[int]:
    return sorted({synapse.source for synapse in net.synapses if synapse.source < net.inputs})


def _columns(net: Genome) -> tuple[list[int], list[int], list[int]]:
    return _read_inputs(net), list(net.hidden), list(range(net.inputs, net.first_hidden))


def _places(net: Genome) -> dict[int, svg.Point]:
    """Return where each neuron is: columns from left to right, each in the middle of the height."""
    columns = _columns(net)
    rows = max(len(column) for column in columns)
    across = (LEFT, WIDTH / 2, WIDTH - LEFT)
    return {
        node: (x, TOP + ROW * (place + 0.5 + (rows - len(column)) / 2))
        for x, column in zip(across, columns, strict=True)
        for place, node in enumerate(column)
    }


def _captions(net: Genome) -> list[str]:
    unused = net.inputs - len(_read_inputs(net))
    first = f"inputs ({unused} more are not read)" if unused else "inputs"
    names = (
        (24.0, "start", first),
        (WIDTH / 2, "middle", "hidden" if net.hidden else ""),
        (WIDTH - 24, "end", "outputs"),
    )
    return [svg.text((x, 54), words, anchor=anchor) for x, anchor, words in names if words]


def _neuron(net: Genome, node: int, at: svg.Point) -> str:
    is_input, is_output = node < net.inputs, net.inputs <= node < net.first_hidden
    words = name_of(net, node) if is_input else f"{name_of(net, node)}: threshold {net.thresholds[node]}"
    colour = svg.INK if is_input else svg.FRONT if is_output else svg.HAND
    shift, anchor = (-16, "end") if is_input else (16, "start")
    below = () if is_input else (svg.text((at[0] + shift, at[1] + 17), f"θ {net.thresholds[node]}", size=10),)
    label = svg.text((at[0] + shift, at[1] + 4), name_of(net, node), anchor=anchor)
    return svg.hover(words, svg.circle(at, RADIUS, colour=colour), label, *below)


def _synapse(synapse: Synapse, places: Mapping[int, svg.Point], weight_max: int) -> str:
    start, end = places[synapse.source], places[synapse.target]
    colour = EXCITING if synapse.weight >= 0 else INHIBITING
    width = 0.8 + 3.2 * abs(synapse.weight) / weight_max
    words = f"{synapse.source} to {synapse.target}: weight {synapse.weight}, delay {synapse.delay}"
    points = _arc(start, end)
    mark = svg.circle(points[-2], 2.6, colour=colour)
    return svg.hover(words, svg.polyline(points, colour=colour, width=width, opacity=0.7), mark)


def _arc(start: svg.Point, end: svg.Point) -> list[svg.Point]:
    """Return a cubic curve that leaves to the right and arrives from the left; one back or to itself bulges out."""
    reach = max(60.0, abs(end[0] - start[0]) / 2)
    bulge = 0.0 if end[0] > start[0] else -46.0
    first, second = (start[0] + reach, start[1] + bulge), (end[0] - reach, end[1] + bulge)
    return [_bezier((start, first, second, end), i / POINTS) for i in range(POINTS + 1)]


def _bezier(control: tuple[svg.Point, svg.Point, svg.Point, svg.Point], at: float) -> svg.Point:
    shares = ((1 - at) ** 3, 3 * at * (1 - at) ** 2, 3 * at**2 * (1 - at), at**3)
    x, y = (sum(share * point[axis] for share, point in zip(shares, control, strict=True)) for axis in (0, 1))
    return x, y
