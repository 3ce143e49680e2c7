"""``ftnas campaign`` and ``ftnas sites``. Torch is imported inside the commands only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from ftnas.cli.completing import complete_faults
from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.options import BatchSize, Bits, Data, DataDirectory, Images, Net, Study, Threads, Weights, given, refuse
from ftnas.cli.output import Json
from ftnas.errors import CampaignError

Out = Annotated[Path, Option("--out", help="The folder for the results. The same command goes on there.")]
Faults = Annotated[
    list[str] | None,
    Option(
        "--faults",
        help="What fails on a chip, and how often: weights.bitflip:1e-4,1e-3. Repeatable.",
        autocompletion=complete_faults,
    ),
]
Margin = Annotated[
    float | None, Option("--margin", help="Go on until every interval is at most so wide, from its middle: 0.005.")
]
Chips = Annotated[int | None, Option("--chips", help="So many chips, instead of a margin.")]
MaxChips = Annotated[int | None, Option("--max-chips", help="Where a margin gives up; by default at 1000.")]
ExportChip = Annotated[int | None, Option("--export-chip", help="Also write the faults and the weights of this chip.")]
Map = Annotated[
    Path | None,
    Option("--map", help="Of a layered spiking net: a fault map (.json, .csv), broken on every chip beside --faults."),
]
Single = Annotated[
    Literal["weights"] | None, Option("--single", help="Inject single faults instead of measuring whole chips.")
]
Sites = Annotated[str | None, Option("--sites", help="Single faults: in which weights, as 'layers.1.*'.")]
Kinds = Annotated[str | None, Option("--kinds", help="Single faults: of flip,stuck_at_0,stuck_at_1; by default flip.")]
By = Annotated[
    Literal["network", "layer", "bit", "layer_bit"] | None,
    Option("--by", help="Single faults: a result for each of these; by default one for the network."),
]
Count = Annotated[int | None, Option("--n", help="Single faults: so many, instead of a margin.")]
Exhaustive = Annotated[bool, Option("--exhaustive", help="Single faults: every one, instead of a margin.")]
Allocation = Annotated[
    Literal["bits", "neyman", "proportional"] | None,
    Option("--allocation", help="Single faults: how --n is shared out; by bit as bits are worth, else after a pilot."),
]
Pilot = Annotated[int | None, Option("--pilot", help="Single faults: how many of each stratum to begin with.")]
Critical = Annotated[
    float | None, Option("--critical", help="Single faults: the share of images that a critical one changes: 0.01.")
]
Confidence = Annotated[float, Option("--confidence", help="Of the intervals.")]
Part = Annotated[
    str | None, Option("--shard", help="Only the first of two parts: 0/2. Without it the parts in --out are joined.")
]
Pattern = Annotated[str, Argument(help="Which sites, as '*.weight'.")]


def campaign(
    net: Net,
    out: Out,
    faults: Faults = None,
    margin: Margin = None,
    chips: Chips = None,
    max_chips: MaxChips = None,
    export_chip: ExportChip = None,
    map: Map = None,
    single: Single = None,
    sites: Sites = None,
    kinds: Kinds = None,
    by: By = None,
    n: Count = None,
    exhaustive: Exhaustive = False,
    allocation: Allocation = None,
    pilot: Pilot = None,
    critical: Critical = None,
    confidence: Confidence = 0.95,
    study: Study = "campaign",
    data: Data = None,
    data_dir: DataDirectory = None,
    images: Images = None,
    bits: Bits = None,
    weights: Weights = None,
    batch_size: BatchSize = None,
    workers: Threads = 1,
    shard: Part = None,
    as_json: Json = False,
) -> None:
    """Measure a trained net on faulty chips, or under single faults, until the intervals are narrow enough."""
    of_chips = {"faults": faults, "chips": chips, "max_chips": max_chips, "export_chip": export_chip, "map": map}
    of_single = {
        "sites": sites, "kinds": kinds, "by": by, "n": n, "exhaustive": exhaustive or None,
        "allocation": allocation, "pilot": pilot, "critical": critical,
    }  # fmt: skip
    of_both: dict[str, Any] = {"margin": margin, "confidence": confidence, "study": study}
    with one_line_errors():
        chosen = _chosen(of_chips, of_single) if single is None else _chosen(of_single, of_chips)
        from ftnas.campaign import Shard
        from ftnas.cli.printing import print_chips, print_single
        from ftnas.pipeline.campaigns import ChipOptions, Execution, SingleOptions, measure_chips, measure_single
        from ftnas.pipeline.nets import load_net
        from ftnas.pipeline.spiking_campaigns import measure_graph_chips
        from ftnas.pipeline.spiking_nets import graph_file

        execution = Execution(out, workers, None if shard is None else Shard.parse(shard), batch_size)
        graph = graph_file(net)
        if graph is not None:
            own = f"{net} is a spiking graph, which takes none"  # it has its own weights, and takes whole tasks as data
            refuse(CampaignError, own, single=single, data_dir=data_dir, images=images, bits=bits, weights=weights)
            result = measure_graph_chips(graph, ChipOptions(**chosen, **of_both), execution, task=data)
            return print_chips(result, out, as_json=as_json)
        loaded = load_net(net, data=data, data_directory=data_dir, images=images, bits=bits, weights=weights)
        if single is None:
            print_chips(measure_chips(loaded, ChipOptions(**chosen, **of_both), execution), out, as_json=as_json)
        else:
            print_single(measure_single(loaded, SingleOptions(**chosen, **of_both), execution), out, as_json=as_json)


def sites(
    net: Net,
    pattern: Pattern = "*",
    data: Data = None,
    data_dir: DataDirectory = None,
    bits: Bits = None,
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """List what can fail in a trained net: name, shape, format and bits of every weight and output."""
    with one_line_errors():
        from ftnas.cli.printing import print_sites
        from ftnas.pipeline.campaigns import list_sites
        from ftnas.pipeline.nets import load_net

        loaded = load_net(net, data=data, data_directory=data_dir, bits=bits, weights=weights)
        print_sites(list_sites(loaded, pattern), as_json=as_json)


def _chosen(own: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of one kind of campaign that were given, lists as tuples; none of the other's may be."""
    kinds = "single faults, with --single weights" if "by" in other else "chips, not for single faults"
    refuse(CampaignError, f"is for {kinds}", **other)
    chosen = given(**own)
    if "by" in own:
        texts = str(chosen.pop("kinds", "flip")).split(",")
        return chosen | {"kinds": tuple(text.strip() for text in texts)}
    if not chosen.get("faults"):
        raise CampaignError("--faults: none are given; write for instance --faults weights.bitflip:1e-3")
    return chosen | {"faults": tuple(chosen["faults"])}
