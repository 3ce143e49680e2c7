"""``ftnas faultmap`` and ``ftnas remap``. Torch is imported inside the commands only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from ftnas.cli.completing import complete_faults
from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.options import Data, DataDirectory, Images, Study
from ftnas.cli.output import Json, console, print_json, print_table, right, table
from ftnas.errors import FaultError

if TYPE_CHECKING:
    from ftnas.pipeline.fault_maps import MapMeasured

Net = Annotated[
    str, Argument(metavar="NET", help="A layered spiking net: a search's or training's folder, a .json or .nir file.")
]
Faults = Annotated[
    list[str] | None,
    Option("--faults", help="Draw what is broken: synapses.flipped:0.05. Repeatable.", autocompletion=complete_faults),
]
Chip = Annotated[int | None, Option("--chip", min=0, help="With --faults: of which chip of the study; by default 0.")]
Map = Annotated[Path | None, Option("--map", help="Instead of --faults: a map that is there (.json, .csv).")]
Out = Annotated[Path | None, Option("--out", help="The file for the map: .json, or .csv for tables.")]
GivenMap = Annotated[Path, Option("--map", help="What is broken on the chip (.json, .csv).")]
Folder = Annotated[Path, Option("--out", help="The folder for the net, which every other command then takes.")]
Bypass = Annotated[bool, Option("--bypass", help="The chip passes its broken synapses by: they count as 0.")]


def faultmap(
    net: Net,
    faults: Faults = None,
    chip: Chip = None,
    study: Study = "campaign",
    map: Map = None,
    out: Out = None,
    data: Data = None,
    data_dir: DataDirectory = None,
    images: Images = None,
    as_json: Json = False,
) -> None:
    """Draw what is broken on a chip, or check a map of yours, and measure a layered spiking net on it."""
    with one_line_errors():
        from ftnas.pipeline.fault_maps import drawn_map, measure_map, read_map
        from ftnas.pipeline.nets import load_net
        from ftnas.spiking.dense.map_file import check_name, save_map

        if (map is None) == (not faults):
            raise FaultError("--faults, --map: give one of them, faults to draw or a map that is there")
        if map is not None and chip is not None:
            raise FaultError("--chip: says which chip is drawn; a map is of one")
        if out is not None:
            check_name(out)
        loaded = load_net(net, data=data, data_directory=data_dir, images=images)
        found = drawn_map(loaded, faults or (), chip=chip or 0, study=study) if map is None else read_map(loaded, map)
        measured = measure_map(loaded, found)
        if out is not None:
            save_map(found, out)
        _print_measured(measured, out, as_json=as_json)


def remap(
    net: Net,
    map: GivenMap,
    out: Folder,
    bypass: Bypass = False,
    data: Data = None,
    data_dir: DataDirectory = None,
    as_json: Json = False,
) -> None:
    """Place the neurons of a layered spiking net where a chip's faults harm least. Nothing is trained."""
    with one_line_errors():
        from ftnas.pipeline.fault_maps import remap as place
        from ftnas.pipeline.nets import load_net

        found = place(load_net(net, data=data, data_directory=data_dir), map, out, bypass=bypass)
        if as_json:
            return print_json({**found, "folder": str(out)})
        rows = table("net", right("no faults"), right("on the chip"), right("placed anew"))
        rows.add_row(found["net"], *(f"{100 * found[key]:.1f}" for key in ("clean", "before", "after")))
        output = console()
        print_table(output, rows, f"{found['faults']:,} faults, accuracy in %")
        output.print(f"net: {out}", soft_wrap=True)


def _print_measured(found: MapMeasured, out: Path | None, *, as_json: bool) -> None:
    content = found.to_dict()
    if as_json:
        return print_json(content | ({} if out is None else {"map": str(out)}))
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in content["kinds"].items()) or "no faults"
    rows = table("net", *map(right, ("no faults", "on the chip", "synapses passed by")))
    rows.add_row(found.net, *(f"{100 * value:.1f}" for value in (found.clean, found.on_chip, found.bypassed)))
    output = console()
    print_table(output, rows, f"{kinds}; accuracy in %")
    if out is not None:
        output.print(f"map: {out}", soft_wrap=True)
