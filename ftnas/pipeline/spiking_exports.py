"""Spiking nets that leave the run folder: nets and tables proven equal to the net, drawings and rasters beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftnas import __version__
from ftnas.campaign.measurement import batch_logits
from ftnas.errors import DataError, ExportError
from ftnas.export.exporting import FORMATS, PROOF, chosen_formats, workshop
from ftnas.export.proof import Proof, Proofs, check_equal, compare
from ftnas.files import write_json, write_text
from ftnas.pipeline.checkpoints import Checkpoint
from ftnas.pipeline.layered_pictures import layered_drawing, layered_raster
from ftnas.report.raster import write_png
from ftnas.spiking.dense import tables
from ftnas.spiking.dense.json_file import read_network_json, write_network_json
from ftnas.spiking.dense.network import SpikingNet
from ftnas.spiking.dense.nir_file import read_nir, write_nir

SCHEMA = 1
NETS, PICTURES = ("json", "nir", "tables"), ("drawing", "raster")
SPIKING_FORMATS = (*NETS, *PICTURES)
ALL_FORMATS = (*FORMATS, *SPIKING_FORMATS)


@dataclass(frozen=True)
class Written:
    """Files of one format.

    Attributes:
        files: their names.
        runtime: what ran them.
        net: what was read back; ``None`` for a picture.
    """

    files: tuple[str, ...]
    runtime: str = "ftnas"
    net: SpikingNet | None = None


@dataclass(frozen=True)
class _Job:
    """What is written: ``net`` into the folder ``place``, its files called ``name``."""

    net: SpikingNet
    place: Path
    name: str
    facts: Mapping[str, str]
    image: Tensor
    title: str


def export_spiking(
    net: Checkpoint, model: SpikingNet, formats: Sequence[str], out: Path, *, name: str, sample: int = 0
) -> Proofs:
    """Write ``model`` into the new folder ``out`` in each of ``formats``; all files or none.

    Args:
        net: whose model it is.
        model: what is written.
        formats: of ``json``, ``nir`` and ``tables``, each read back, ``drawing`` and ``raster``.
        out: a new folder, or an empty one.
        name: of the files.
        sample: the test image whose spikes ``raster`` shows.

    Raises:
        ExportError: a file does not read back to the same answers, or ``out`` holds something.
        DataError: there are not so many test images.
    """
    wanted = chosen_formats(formats, SPIKING_FORMATS)
    check_new(out)
    images, here = net.data.test_images.cpu(), model.cpu().eval()
    if not 0 <= sample < len(images):
        raise DataError(f"--sample: {sample}; allowed is 0 to {len(images) - 1}, the test images of {net.data.name}")
    facts = {"ftnas": __version__, "source": net.name, "data": net.data.name, "chip": "fault-free"}
    expected = batch_logits(here, images)
    answer, label = int(expected[sample].argmax()), int(net.data.test_labels[sample])
    title = f"{net.name}, test image {sample}: class {label}, answer {answer}"
    with workshop(out) as place:
        job = _Job(here, place, name, facts, images[sample : sample + 1], title)
        proofs = tuple(_proof(form, WRITERS[form](job), images, expected) for form in wanted)
        return finished(place, out, name, facts, proofs)


def _proof(form: str, written: Written, images: Tensor, expected: Tensor) -> Proof:
    """Return how equal a file is to the net; of a picture only that it was written."""
    if written.net is None:
        return picture(form, written.files)
    found = batch_logits(written.net, images)
    proof = check_equal(compare(form, written.runtime, written.files, found=found, expected=expected))
    if not torch.equal(found, expected):
        raise ExportError(f"{form}: the file that was read back gives other logits")
    return proof


def picture(form: str, files: Sequence[str]) -> Proof:
    """Return what is said of a drawing: it is looked at, not run."""
    return Proof(form, "", tuple(files), images=0, same=0, largest=0.0, beyond=None)


def check_new(out: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        ExportError: it does.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out}: exists and is not empty; choose another with --out")


def finished(place: Path, out: Path, name: str, facts: Mapping[str, str], proofs: tuple[Proof, ...]) -> Proofs:
    """Write the proofs and move all files from ``place`` to ``out``, the proofs first."""
    content: dict[str, Any] = {"schema": SCHEMA, "net": name, "facts": dict(facts)}
    write_json(place / PROOF, {**content, "proofs": [proof.to_dict() for proof in proofs]})
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(place.iterdir(), key=lambda file: file.name != PROOF):
        file.replace(out / file.name)
    return Proofs(out, name, facts, proofs)


def write_picture(place: Path, name: str, drawing: str) -> tuple[str, str]:
    """Write a drawing as SVG and PNG and return the names of the files."""
    write_text(place / f"{name}.svg", drawing)
    write_png(drawing, place / f"{name}.png")
    return f"{name}.svg", f"{name}.png"


def _json(job: _Job) -> Written:
    file = job.place / f"{job.name}.json"
    write_network_json(job.net, file, facts=job.facts)
    return Written((file.name,), net=read_network_json(file))


def _nir(job: _Job) -> Written:
    file = job.place / f"{job.name}.nir"
    write_nir(job.net, file)
    return Written((file.name,), f"nir {version('nir')}, ftnas", read_nir(file))


def _tables(job: _Job) -> Written:
    neurons, synapses, header = (job.place / f"{job.name}{end}" for end in ("_neurons.csv", "_synapses.csv", ".h"))
    write_text(neurons, tables.neuron_table(job.net))
    write_text(synapses, tables.synapse_table(job.net))
    write_text(header, tables.c_tables(job.net, job.name))
    net = job.net
    found = tables.read_tables(neurons, synapses, spec=net.spec, image_shape=net.image_shape, classes=net.classes)
    return Written((neurons.name, synapses.name, header.name), net=found)


def _drawing(job: _Job) -> Written:
    drawing = layered_drawing(job.net, job.facts["source"])
    return Written(write_picture(job.place, f"{job.name}_drawing", drawing))


def _raster(job: _Job) -> Written:
    drawing = layered_raster(job.net, job.image, job.title)
    return Written(write_picture(job.place, f"{job.name}_raster", drawing))


WRITERS: Mapping[str, Callable[[_Job], Written]] = {
    "json": _json,
    "nir": _nir,
    "tables": _tables,
    "drawing": _drawing,
    "raster": _raster,
}
