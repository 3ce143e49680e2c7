"""Layered spiking nets that leave the run folder, each file proven equal to the net on the test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from ftnas import __version__
from ftnas.campaign.measurement import batch_logits
from ftnas.errors import ExportError
from ftnas.export.exporting import FORMATS, PROOF, chosen_formats, workshop
from ftnas.export.proof import Proof, Proofs, check_equal, compare
from ftnas.files import write_json
from ftnas.pipeline.checkpoints import Checkpoint
from ftnas.spiking.dense.json_file import read_network_json, write_network_json
from ftnas.spiking.dense.network import SpikingNet
from ftnas.spiking.dense.nir_file import read_nir, write_nir

SCHEMA = 1
# (net, place, facts) -> writes; place -> reads back.
_FILES: Mapping[str, tuple[Callable[[SpikingNet, Path, Mapping[str, str]], None], Callable[[Path], SpikingNet]]] = {
    "json": (lambda net, path, facts: write_network_json(net, path, facts=facts), read_network_json),
    "nir": (lambda net, path, facts: write_nir(net, path), read_nir),
}
SPIKING_FORMATS = tuple(_FILES)
ALL_FORMATS = (*FORMATS, *SPIKING_FORMATS)


def export_spiking(net: Checkpoint, model: SpikingNet, formats: Sequence[str], out: Path, *, name: str) -> Proofs:
    """Write ``model`` into the new folder ``out`` in each of ``formats``; all files or none.

    Args:
        net: whose model it is.
        model: what is written.
        formats: ``json``, ``nir`` or both.
        out: a new folder, or an empty one.
        name: of the files.

    Raises:
        ExportError: a file does not read back to the same answers, or ``out`` holds something.
    """
    wanted = chosen_formats(formats, SPIKING_FORMATS)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out}: exists and is not empty; choose another with --out")
    facts = {"ftnas": __version__, "source": net.name, "data": net.data.name, "chip": "fault-free"}
    images, here = net.data.test_images.cpu(), model.cpu().eval()
    expected = batch_logits(here, images)
    with workshop(out) as place:
        proofs = []
        for format in wanted:
            write, read = _FILES[format]
            file = place / f"{name}.{format}"
            write(here, file, facts)
            runtime = f"nir {version('nir')}, ftnas" if format == "nir" else "ftnas"
            found = batch_logits(read(file), images)
            proofs.append(check_equal(compare(format, runtime, [file.name], found=found, expected=expected)))
            if not torch.equal(found, expected):
                raise ExportError(f"{format}: the file that was read back gives other logits")
        content = {"schema": SCHEMA, "net": name, "facts": facts, "proofs": [proof.to_dict() for proof in proofs]}
        write_json(place / PROOF, content)
        out.mkdir(parents=True, exist_ok=True)
        for file in sorted(place.iterdir(), key=lambda file: file.name != PROOF):
            file.replace(out / file.name)
    return Proofs(out, name, facts, tuple[Proof, ...](proofs))
