"""``ftnas show``: a net on the terminal. Torch is imported inside the command only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.text import Text
from typer import Argument, Option

from ftnas.cli.completing import complete_data_sets, complete_spaces
from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.options import refuse
from ftnas.cli.output import Json, console, print_json, print_table, right, shows, table
from ftnas.errors import SpikingError

if TYPE_CHECKING:
    from ftnas.pipeline.description import Description
    from ftnas.pipeline.spiking_description import SpikingDescription
    from ftnas.report.results import Result
    from ftnas.space import Sizes

Net = Annotated[
    str,
    Argument(
        metavar="NET",
        help="A run folder, for its winner; a folder in its trainings; an exported net; a genotype.json; or a model of "
        "your own: FILE.py:NAME, FILE.pt2, FILE.onnx; or the .json or .nir file of a spiking net.",
    ),
]
Space = Annotated[
    str | None,
    Option("--space", help="Of a genotype.json: its search space, for its cost.", autocompletion=complete_spaces),
]
Data = Annotated[
    str | None,
    Option(
        "--data",
        help="Of a genotype.json or a model of your own: the data set, for its image size.",
        autocompletion=complete_data_sets,
    ),
]
DataDirectory = Annotated[Path | None, Option("--data-dir", help="The folder or file of the data set.")]
Bits = Annotated[int | None, Option("--bits", help="Of a model of your own: of weights and features, by default 8.")]


def show(
    net: Net,
    space: Space = None,
    data: Data = None,
    data_dir: DataDirectory = None,
    bits: Bits = None,
    as_json: Json = False,
) -> None:
    """Show a net: its cells as a drawing, its cost, and its scores.

    Nothing is measured: the scores, with their intervals, are those that its folder holds.
    """
    with one_line_errors():
        from ftnas.pipeline.description import describe
        from ftnas.pipeline.spiking_description import describe_spiking

        spiking = describe_spiking(net)
        if spiking is not None:
            own = f"would change nothing; {net} is shown from its own files"
            refuse(SpikingError, own, space=space, data=data, data_dir=data_dir, bits=bits)
            return print_json(spiking.to_dict()) if as_json else _print_spiking(console(), spiking)
        found = describe(net, space=space, data=data, data_directory=data_dir, bits=bits)
        if as_json:
            return print_json(found.to_dict())
        _print(console(), found)


def _print(output: Console, net: Description) -> None:
    key = "" if net.genotype is None else f"  genotype {net.genotype.key}"
    output.print(Text.assemble((net.name, "bold"), key), soft_wrap=True)
    output.print(net.origin, soft_wrap=True, highlight=False)
    for line in (*_drawing(net), *_numbers(net)):
        output.print(line, soft_wrap=True, highlight=False)
    if net.result is not None:
        _print_scores(output, net.result)
    for note in net.notes:
        output.print(f"{note}", soft_wrap=True)


def _print_spiking(output: Console, net: SpikingDescription) -> None:
    from ftnas.report import wording

    output.print(Text.assemble((net.name, "bold"), f"  {net.family}"), soft_wrap=True)
    for line in (net.origin, net.summary):
        output.print(line, soft_wrap=True, highlight=False)
    first, *others = net.head
    parts = table(first, *map(right, others))
    for row in net.parts:
        parts.add_row(*row)
    output.print()
    print_table(output, parts)
    for note in net.notes:
        output.print(note, soft_wrap=True)
    if net.scores:
        scores = table("measured on", right("accuracy"), right("95 % interval"))
        for name, accuracy, low, high in net.scores:
            ends = "" if low is None or high is None else wording.interval(low, high)
            scores.add_row(name, wording.percent(accuracy), ends)
        output.print()
        print_table(output, scores)


def _drawing(net: Description) -> list[str]:
    if net.genotype is None:
        return []
    from ftnas.cli.cell_drawing import ASCII, NEEDED, UNICODE, genotype_lines

    return ["", *genotype_lines(net.genotype, UNICODE if shows(NEEDED, sys.stdout) else ASCII), ""]


def _numbers(net: Description) -> list[str]:
    """Return lines on what the net is built of, and what it costs."""
    from ftnas.report import wording

    lines = [] if net.sizes is None else [f"network: {_layout(net.sizes)}"]
    if "baseline" in net.spec:
        lines.append(f"network: {net.spec['baseline']}, {net.spec['width']:g} times its own width")
    if "python" in net.spec:
        lines.append(f"network: {net.spec['python']}, quantised to {net.spec['bits']} bits")
    if net.cost is not None:
        flops, weights = wording.megaflops(net.cost.flops), wording.kibibytes(net.cost.weight_bits)
        lines.append(f"cost of {net.image}: {flops} MFLOPs; {net.cost.parameters:,} parameters, weights of {weights}")
    return lines


def _layout(sizes: Sizes) -> str:
    kinds = ", ".join(sizes.kind(cell) for cell in range(sizes.cells))
    return f"{sizes.cells} cells ({kinds}), {sizes.channels} channels a node in the first"


def _print_scores(output: Console, result: Result) -> None:
    """Print the accuracy without faults and at each rate, as intervals over chips."""
    from ftnas.report import wording

    title = f"{result.fault}: accuracy, 95 % interval over {result.chips} chips"
    scores = table(right("rate"), right("mean"), right("interval"))
    scores.add_row("no faults", wording.percent(result.clean), "")
    for score in result.rates:
        scores.add_row(f"{score.rate:g}", wording.percent(score.mean), wording.interval(score.low, score.high))
    output.print()
    print_table(output, scores, title)
