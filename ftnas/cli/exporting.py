"""``ftnas export``. Torch is imported inside the command only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from ftnas.cli.completing import complete_faults, complete_formats
from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.options import Bits, Data, DataDirectory, Images, Study, Weights, refuse
from ftnas.cli.output import Json, console, print_json, print_table, right, table
from ftnas.errors import ExportError

if TYPE_CHECKING:
    from ftnas.export.proof import Proofs

Words = Annotated[
    list[str],
    Argument(
        metavar="NET",
        help="A run folder, for its winner; a training's or an exported folder; FILE.py:NAME, FILE.pt2 or FILE.onnx; "
        "the .json or .nir file of a spiking net. Further words are formats, as those behind --format.",
    ),
]
Formats = Annotated[
    list[str] | None,
    Option(
        "--format",
        help="One or more of onnx, pt2, safetensors and c; of a spiking net of json, nir (layers), tables, drawing and "
        "raster; with blanks or commas between.",
        autocompletion=complete_formats,
    ),
]
Out = Annotated[Path, Option("--out", help="The folder for the files. Nothing is written unless every proof holds.")]
Faults = Annotated[
    list[str] | None,
    Option(
        "--faults",
        help="Write the faulty twin that these make, such as weights.bitflip:1e-3. Repeatable.",
        autocompletion=complete_faults,
    ),
]
Chip = Annotated[int | None, Option("--chip", min=0, help="With --faults: of which chip; by default of chip 0.")]
Sample = Annotated[
    int | None, Option("--sample", min=0, help="Of a spiking net: the test sample whose spikes raster shows; 0.")
]
Name = Annotated[str, Option("--name", help="Of the files; in C of functions and tables, too.")]


def export(
    words: Words,
    out: Out,
    formats: Formats = None,
    faults: Faults = None,
    chip: Chip = None,
    study: Study = "campaign",
    name: Name = "net",
    sample: Sample = None,
    data: Data = None,
    data_dir: DataDirectory = None,
    images: Images = None,
    bits: Bits = None,
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Write a net as files for other programs, each run on the test images and proven equal to the net."""
    with one_line_errors():
        from ftnas.export.exporting import chosen_formats
        from ftnas.pipeline.exports import export as write
        from ftnas.pipeline.graph_exports import export_graph
        from ftnas.pipeline.nets import load_net
        from ftnas.pipeline.spiking_exports import ALL_FORMATS
        from ftnas.pipeline.spiking_nets import graph_file

        net, more = _net_and_formats(words, ALL_FORMATS)
        wanted = chosen_formats([*(formats or []), *more], ALL_FORMATS)
        if chip is not None and not faults:
            raise ExportError("--chip: says which chip's faults are in the files; name them with --faults")
        if sample is not None and "raster" not in wanted:
            raise ExportError("--sample: says which spikes a raster shows; add the format raster")
        graph = graph_file(net)
        if graph is not None:
            own = f"{net} is a spiking graph, which takes none"
            refuse(ExportError, own, faults=faults, data_dir=data_dir, images=images, bits=bits, weights=weights)
            proofs = export_graph(graph, wanted, out, name=name, task=data, sample=sample or 0)
            return _print(proofs, as_json=as_json)
        loaded = load_net(net, data=data, data_directory=data_dir, images=images, bits=bits, weights=weights)
        proofs = write(loaded, wanted, out, faults=faults or (), chip=chip or 0, study=study, name=name, sample=sample)
        _print(proofs, as_json=as_json)


def _net_and_formats(words: Sequence[str], known: Collection[str]) -> tuple[str, list[str]]:
    """Return the net among ``words``, and the formats: those after the first behind one ``--format`` arrive here."""
    formats = [word for word in words if all(part in known for part in word.split(","))]
    nets = [word for word in words if word not in formats]
    if not nets and formats:
        raise ExportError(f"NET: is missing; for a folder that is called {formats[0]} write ./{formats[0]}")
    if len(nets) > 1:
        raise ExportError(f"NET: {', '.join(nets)}; allowed is one net, and formats from {', '.join(known)}")
    return nets[0], formats


def _print(proofs: Proofs, *, as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(proofs.folder), **proofs.to_dict()})
        return
    output = console()
    columns = "same answers", "largest difference", "images beyond 1e-5"
    found = table("format", "files", "run by", *map(right, columns))
    for proof in proofs.proofs:
        if not proof.images:  # a picture, which is looked at and not run
            found.add_row(proof.format, " ".join(proof.files), "", "", "", "")
            continue
        beyond = "" if proof.beyond is None else f"{proof.beyond:,}"
        same = f"{proof.same:,} of {proof.images:,}"
        found.add_row(proof.format, " ".join(proof.files), proof.runtime, same, f"{proof.largest:.3g}", beyond)
    print_table(output, found)
    for proof in proofs.proofs:
        for remark in proof.remarks:
            output.print(f"{proof.format}: {remark}", soft_wrap=True)
    output.print(f"{proofs.facts['chip']}; files: {proofs.folder}", soft_wrap=True)
