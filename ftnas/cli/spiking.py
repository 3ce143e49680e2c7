"""``ftnas spikes``. Torch is imported inside the command only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from ftnas.cli.completing import complete_spiking_tasks
from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.output import Json, console, print_json, print_table, right, table
from ftnas.errors import SpikingError

if TYPE_CHECKING:
    from ftnas.pipeline.spiking_graphs import GraphMeasured

Net = Annotated[Path, Argument(help="The .json file of a spiking graph, as in the nets/ of a run.")]
Task = Annotated[
    str | None, Option("--task", help="By default that of the net.", autocompletion=complete_spiking_tasks)
]
Faults = Annotated[
    list[str] | None, Option("--faults", help="What fails: weights.gaussian:0.1,0.2. Repeatable, one after another.")
]
Chips = Annotated[int | None, Option("--chips", min=2, help="Faulty chips for each strength; by default 50.")]
Sample = Annotated[int | None, Option("--sample", min=0, help="The test sample whose spikes are drawn; by default 0.")]
Out = Annotated[Path | None, Option("--out", help="A folder for fixed-point tables, drawing and spike raster.")]


def spikes(
    net: Net,
    task: Task = None,
    faults: Faults = None,
    chips: Chips = None,
    sample: Sample = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Measure a spiking graph from a file, on faulty chips if faults are given; write its tables and drawings."""
    with one_line_errors():
        from ftnas.pipeline.spiking_graphs import CHIPS, measure_graph

        if sample is not None and out is None:
            raise SpikingError("--sample: would change nothing without --out, the folder for the drawing")
        if chips is not None and not faults:
            raise SpikingError("--chips: would change nothing without --faults")
        found = measure_graph(net, task=task, faults=faults or (), chips=chips or CHIPS, sample=sample or 0, out=out)
        print_measured(found, out, as_json=as_json)


def print_layers(result: dict[str, Any], out: Path, *, as_json: bool) -> None:
    """Print how good a trained layered net is, on its own chip if it was trained for one, and where it is."""
    if as_json:
        return print_json({**result, "folder": str(out)})
    from ftnas.report import wording

    chip = result["chip"] or {}
    named = {"on_chip": "chip, untrained", "bypassed": "synapses passed by", "trained": "chip, trained"}
    names = [words for key, words in named.items() if key in chip]
    rates = [f"at {rate['rate']:g}" for rate in result["rates"]]
    rows = table("network", "training", *map(right, ("clean", *names, *rates, "synapses", "spikes")))
    scores = [wording.plus_minus(rate["mean"], rate["low"], rate["high"]) for rate in result["rates"]]
    worth = [f"{100 * chip[key]:.1f}" for key in named if key in chip]
    cost = (f"{result['synapses']:,}", f"{result['spikes']:.0f}")
    rows.add_row(result["label"], result["training"], f"{100 * result['clean']:.1f}", *worth, *scores, *cost)
    output = console()
    print_table(output, rows)
    output.print(f"net: {out}", soft_wrap=True)


def print_measured(found: GraphMeasured, out: Path | None, *, as_json: bool) -> None:
    """Print what was measured of a spiking graph, and where its files are."""
    if as_json:
        return print_json(found.to_dict() | ({} if out is None else {"folder": str(out)}))
    output = console()
    genome = found.network.genome
    title = f"{found.task}: {len(genome.synapses)} synapses, {len(genome.hidden)} hidden neurons"
    rows = table("fault", right("test %"), right("95 % interval"))
    rows.add_row("none", f"{100 * found.accuracy:.1f}", "")
    for row in found.faults:
        rows.add_row(row["fault"], f"{100 * row['mean']:.1f}", f"{100 * row['low']:.1f} .. {100 * row['high']:.1f}")
    print_table(output, rows, title)
    if out is not None:
        output.print(f"files: {out}", soft_wrap=True)
