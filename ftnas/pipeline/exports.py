"""Nets that leave the run folder: exported with proof, and loaded again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ftnas import __version__
from ftnas.campaign.subject import model_hash
from ftnas.data import Dataset
from ftnas.errors import ExportError, FtnasError
from ftnas.export.c_source import c_name
from ftnas.export.exporting import PROOF, Subject, chosen_formats, write_proven
from ftnas.export.proof import Proof, Proofs, Reference
from ftnas.export.tracing import graph_of
from ftnas.faults import Fault, parse_faults
from ftnas.files import read_json, read_tensors, write_json
from ftnas.pipeline.checkpoints import Checkpoint, find_training, load_checkpoint, load_weights_
from ftnas.pipeline.own_sources import keep_source, load_kept
from ftnas.pipeline.run_folder import is_workplace
from ftnas.pipeline.spiking_exports import export_spiking
from ftnas.pipeline.trained import rebuilt
from ftnas.runtime import place
from ftnas.spiking.dense.network import SpikingNet
from ftnas.untrusted import plain_name, understood

SCHEMA = 1
STUDY, NAME = "campaign", "net"
CALIBRATION_IMAGES = 512  # for the range of the input where that has to be integers


def export(
    net: Checkpoint,
    formats: Sequence[str],
    out: Path,
    *,
    faults: Sequence[Fault | str] = (),
    chip: int = 0,
    study: str = STUDY,
    name: str = NAME,
    sample: int | None = None,
) -> Proofs:
    """Write ``net`` into the folder ``out``, each file proven equal to it on all test images; all files or none.

    Args:
        net: what is written.
        formats: of ``onnx``, ``pt2``, ``safetensors`` and ``c``; of a spiking net, of ``json``, ``nir``, ``tables``,
            ``drawing`` and ``raster``.
        out: a new folder, an empty one, or one that holds other formats of the same net.
        faults: write the faulty twin of the net that these, permanent ones of weights, make.
        chip: of this chip.
        study: of the chip, as campaigns name theirs.
        name: of the files; in C of functions and tables, too.
        sample: the test image whose spikes a ``raster`` shows, the first by default.

    Raises:
        ExportError: the net cannot be written, a file is not equal to it, or ``out`` holds something else.
        FaultError: a fault is impossible.
    """
    if isinstance(net.model, SpikingNet):
        if faults:
            raise ExportError("--faults: a spiking net is written without any; give its files' reader the fault map")
        return export_spiking(net, net.model, formats, out, name=name, sample=sample or 0)
    wanted, broken = chosen_formats(formats), parse_faults(faults)
    if c_name(name) != name:
        raise ExportError(
            f"--name: {name!r}; allowed are small letters, digits and _, as in C, such as {c_name(name)!r}"
        )
    facts = _facts(net, broken, chip=chip, study=study)
    identity = {"schema": SCHEMA, "net": name, "hash": model_hash(net.model), "facts": facts}
    earlier = _earlier(out, identity, wanted)
    subject = _subject(net, name, broken, chip=chip, study=study, facts=facts)

    def describe(proofs: tuple[Proof, ...], folder: Path) -> None:
        write_json(folder / PROOF, {**identity, "proofs": [proof.to_dict() for proof in (*earlier, *proofs)]})

    proofs = write_proven(subject, wanted, out, describe)
    return Proofs(out, name, facts, (*earlier, *proofs))


def _subject(
    net: Checkpoint, name: str, faults: Sequence[Fault], *, chip: int, study: str, facts: Mapping[str, str]
) -> Subject:
    images = net.data.test_images.cpu()
    graph = graph_of(net.model, images[:1], name=name, faults=faults, chip=chip, study=study, facts=facts)
    reference = Reference(net.model, faults=faults, chip=chip, study=study)
    expected = reference.logits(images)
    if not expected.isfinite().all():
        raise ExportError(f"{net.name}: its logits are not finite, so that nothing can be proven of it")
    return Subject(
        graph=graph,
        model=net.model,
        spec=net.spec,
        is_twin=bool(faults),
        reference=reference,
        images=images,
        expected=expected,
        calibration=net.data.train_images[:CALIBRATION_IMAGES].cpu(),
        keep=partial(keep_source, net),
    )


def load(path: Path | str, *, model: nn.Module | None = None) -> nn.Module:
    """Return a trained net in evaluation mode, on the CPU; no data set is needed.

    Args:
        path: a run folder, which stands for its winner; the folder of a training; or what ``ftnas export`` wrote as
            safetensors: the file, or the folder if it is the only one there.
        model: for an exported net of the user's own: the same net, quantised, into which all is loaded.

    Raises:
        ModelError: an exported file is missing, damaged or of a newer ftnas.
        RunError: there is no finished training.
    """
    where = Path(path)
    if is_workplace(where) or (where / "model.json").exists():
        return _load_training(where)
    return load_kept(where, model=model)


def _load_training(path: Path) -> nn.Module:
    work, home = find_training(path)
    tensors, _ = read_tensors(home / "weights.safetensors")
    entry, logits = _first(tensors, "stem.weight", "layers.0.conv.weight"), tensors.get("classifier.bias")
    # Else a net of the user's own, which is built with the help of its data.
    if entry is None or logits is None or entry.dim() != 4 or logits.dim() != 1:
        return load_checkpoint(path).model.cpu()
    # What a net of ftnas must know of its images: channels and classes. Their size decides nothing.
    none = torch.zeros(0, entry.shape[1], 1, 1), torch.zeros(0, dtype=torch.int64)
    data = Dataset("none", *none, *none, classes=len(logits))
    _, model = rebuilt(work, home, data, most=sum(tensor.numel() for tensor in tensors.values()))
    load_weights_(model, tensors, home / "weights.safetensors")
    return place(model, torch.device("cpu")).eval()


def _first(tensors: Mapping[str, torch.Tensor], *names: str) -> torch.Tensor | None:
    return next((tensors[name] for name in names if name in tensors), None)


def _facts(net: Checkpoint, faults: Sequence[Fault], *, chip: int, study: str) -> dict[str, str]:
    """Return what every file says of the net."""
    which = f"chip {chip} of study {study!r}: {' + '.join(map(str, faults))}" if faults else "fault-free"
    return {"ftnas": __version__, "torch": torch.__version__, "source": net.name, "data": net.data.name, "chip": which}


def _earlier(out: Path, identity: Mapping[str, Any], formats: Sequence[str]) -> tuple[Proof, ...]:
    """Return the proofs of other formats that ``out`` holds.

    Raises:
        ExportError: it holds something else than an export of this net.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return ()
    there = _read_proofs(out)
    if _kept(there) != _kept(identity):
        source, chip = (there["facts"].get(key) for key in ("source", "chip"))
        raise ExportError(f"{out}: holds the export of {source} as {there['net']}, {chip}; choose another with --out")
    with understood(out / PROOF, ExportError):
        found = [Proof.from_dict(content) for content in there["proofs"]]
        for proof in found:
            for file in proof.files:
                plain_name(file, out / PROOF)
    return tuple(
        proof for proof in found if proof.format not in formats and all((out / file).exists() for file in proof.files)
    )


def _kept(content: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what all files of a folder have in common; versions may differ."""
    return content["schema"], content["net"], content["hash"], content["facts"].get("chip")


def _read_proofs(out: Path) -> dict[str, Any]:
    try:
        content = read_json(out / PROOF)
    except FtnasError:
        raise ExportError(f"{out}: exists and holds no export (no {PROOF} of one); choose another with --out") from None
    parts = {"schema": int, "net": str, "hash": str, "facts": dict, "proofs": list}
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in parts.items()):
        raise ExportError(f"{out / PROOF}: is not what ftnas export writes; choose another folder with --out")
    return content
