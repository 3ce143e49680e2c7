"""Writing a net in every format, each file proven equal to the net before anybody sees it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.errors import ExportError
from ftnas.export.c_program import export_c
from ftnas.export.c_source import c_name
from ftnas.export.frozen import FrozenNet
from ftnas.export.graph import Graph
from ftnas.export.onnx_file import run_onnx, runtime_version, write_onnx
from ftnas.export.program import run_program, write_program
from ftnas.export.proof import (
    Proof,
    Reference,
    Values,
    check_equal,
    compare,
    compare_roundings,
    differing,
    explained,
)
from ftnas.export.weights import load_weights, save_weights

PROOF = "proof.json"
# Of the images, as many must get the same answer where a runtime rewrites the graph as it likes.
NEARLY_ALL = 0.99


@dataclass(frozen=True, eq=False)
class Subject:
    """A net to be exported, and what its files must compute.

    Attributes:
        graph: of the net, faulty where a faulty twin is wanted.
        model: the net itself, fault-free.
        spec: see ``weights.save_weights``.
        is_twin: whether the graph's weights are those of a faulty chip.
        reference: computes what the files must compute.
        images: to be compared on, float32 ``[N, C, H, W]`` on the CPU.
        expected: the reference's logits for them ``[N, classes]``.
        keep: of a net of the user's own, writes beside the weights at a path what it can be built from, and returns
            its spec; ``None`` where it cannot be, and has to be given again to be loaded.
        calibration: images for the range of the input where it has to be integers ``[N, C, H, W]``.
    """

    graph: Graph
    model: nn.Module
    spec: Mapping[str, Any] | None
    is_twin: bool
    reference: Reference
    images: Tensor
    expected: Tensor
    calibration: Tensor
    keep: Callable[[Path], Mapping[str, Any] | None] = lambda path: None


def chosen_formats(texts: Sequence[str], known: Collection[str] | None = None) -> tuple[str, ...]:
    """Return those of ``known`` formats that ``texts`` name, each perhaps several with commas between, once each.

    Args:
        texts: as given.
        known: by default those of nets without spikes, ``FORMATS``.

    Raises:
        ExportError: none is named, or one is unknown.
    """
    allowed = FORMATS if known is None else known
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    for name in names:
        if name not in allowed:
            raise ExportError(f"--format: unknown format {name!r}; choose from {', '.join(allowed)}")
    if not names:
        raise ExportError(f"--format: none is given; choose from {', '.join(allowed)}")
    return tuple(dict.fromkeys(names))


def write_proven(
    subject: Subject, formats: Sequence[str], folder: Path, describe: Callable[[tuple[Proof, ...], Path], None]
) -> tuple[Proof, ...]:
    """Write ``subject`` into ``folder`` in each of ``formats`` and return the proofs; all files or none.

    Args:
        subject: what is written.
        formats: keys of ``FORMATS``.
        folder: may hold other files, which stay.
        describe: writes what is to be said of the proofs as ``PROOF`` into the folder it is given.

    Raises:
        ExportError: the net cannot be written in a format, or a file is not equal to it.
    """
    with workshop(folder) as place:
        proofs = tuple(FORMATS[name](subject, place) for name in formats)
        describe(proofs, place)
        folder.mkdir(parents=True, exist_ok=True)
        # The proofs first: the same command goes on where they name files that a kill kept from coming.
        for file in sorted(place.iterdir(), key=lambda file: file.name != PROOF):
            file.replace(folder / file.name)
    return proofs


@contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` that is gone afterwards."""
    # Always the same name, so that what a kill leaves behind is cleared away the next time.
    place = folder.parent / f".{folder.name}.part"
    shutil.rmtree(place, ignore_errors=True)
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise ExportError(f"{folder}: cannot be made ({error.strerror}); choose another place") from None
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _onnx(subject: Subject, folder: Path) -> Proof:
    path = folder / f"{subject.graph.name}.onnx"
    write_onnx(subject.graph, path)
    inner = [node.name for node in subject.graph.nodes if node.number is not None and node.name != subject.graph.output]

    def values(images: Tensor) -> Values:
        found = run_onnx(path, images.numpy(), inner)
        return dict(zip([subject.graph.output, *inner], map(torch.from_numpy, found), strict=True))

    (logits,) = run_onnx(path, subject.images.numpy())
    runtime = f"{runtime_version()}, not optimised"
    proof = _compared(subject, "onnx", runtime, [path], found=torch.from_numpy(logits), values=values)
    return proof.with_remark(_as_deployed(subject, path))


def _as_deployed(subject: Subject, path: Path) -> str:
    """Return how the file runs where the runtime optimises it, as it does by default.

    Raises:
        ExportError: not at all, or to other answers.
    """
    (logits,) = run_onnx(path, subject.images.numpy(), optimised=True)
    found = compare("onnx", "optimised", (), found=torch.from_numpy(logits), expected=subject.expected)
    if found.same < NEARLY_ALL * found.images - 1:
        raise ExportError(
            f"onnx: optimised by {runtime_version()}, {found.same} of {found.images} answers are the net's"
        )
    return (
        f"with the runtime's default optimisation {found.same:,} of {found.images:,} answers are the same, "
        f"logits differ in {found.beyond:,} images, by up to {found.largest:.3g}"
    )


def _program(subject: Subject, folder: Path) -> Proof:
    path = folder / f"{subject.graph.name}.pt2"
    write_program(subject.graph, path)
    net = FrozenNet(subject.graph)
    found = run_program(path, subject.images)
    return _compared(subject, "pt2", f"torch {torch.__version__}", [path], found=found, values=net.values)


def _safetensors(subject: Subject, folder: Path) -> Proof:
    twin = subject.graph if subject.is_twin else None
    path = folder / f"{subject.graph.name}.safetensors"
    spec = subject.keep(path) if subject.spec is None else subject.spec
    files = save_weights(path, subject.model, spec, facts=subject.graph.facts, twin=twin)
    if spec is not None and "source" in spec:
        files.append(path.with_name(spec["source"]))
    again = Reference(load_weights(path, model=None if subject.spec else copy.deepcopy(subject.model)))

    def values(images: Tensor) -> Values:
        return again.values(subject.graph, images)

    return _compared(subject, "safetensors", "ftnas.load", files, found=again.logits(subject.images), values=values)


def _c(subject: Subject, folder: Path) -> Proof:
    found = export_c(
        subject.graph,
        folder,
        calibration=subject.calibration.numpy(),
        images=subject.images.numpy(),
        logits=subject.expected.numpy(),
    )
    name = c_name(subject.graph.name)
    return Proof(
        "c",
        "integers only, C99",
        (f"{name}.h", f"{name}.c", "main.c"),
        images=found.images,
        same=found.equal_predictions,
        largest=found.largest_difference,
        beyond=None,
        remarks=(
            f"in {found.equal_logits:,} of {found.images:,} images every logit of the program is that of the integer "
            "reference",
        ),
    )


def _compared(
    subject: Subject,
    format: str,
    runtime: str,
    files: Sequence[Path],
    *,
    found: Tensor,
    values: Callable[[Tensor], Values],
) -> Proof:
    """Return the proof that ``found`` logits are the net's, with the reason for those that are not.

    ``values`` returns the codes that the file computes on its way, for images.
    """
    names = [file.name for file in files]
    proof = compare(format, runtime, names, found=found, expected=subject.expected)
    images = subject.images[differing(found, subject.expected)]
    if not len(images):
        return check_equal(proof)
    own = subject.reference.values(subject.graph, images)
    return explained(proof, compare_roundings(subject.graph, images, one=own, other=values(images)))


FORMATS: Mapping[str, Callable[[Subject, Path], Proof]] = {
    "onnx": _onnx,
    "pt2": _program,
    "safetensors": _safetensors,
    "c": _c,
}
