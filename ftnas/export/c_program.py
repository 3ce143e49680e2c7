"""Compiling and running the C program, to prove that it computes what the integer reference does."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ftnas.errors import ExportError
from ftnas.export.c_source import c_name, c_sources
from ftnas.export.graph import Graph, Reals
from ftnas.export.integer import IntegerNet, Integers, image_codes, run
from ftnas.export.lowering import integer_net
from ftnas.files import write_text

FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic")


@dataclass(frozen=True, slots=True)
class CProof:
    """How far a C program agrees with the integer reference, and that with the PyTorch net.

    Attributes:
        images: how many were compared.
        equal_logits: of the program and the reference: images whose every logit is the same.
        equal_predictions: of the program and the PyTorch net.
        largest_difference: between the logits of the program, times their scale, and those of the PyTorch net.
        compile_seconds: for the compiler.
        run_seconds: for all images.
    """

    images: int
    equal_logits: int
    equal_predictions: int
    largest_difference: float
    compile_seconds: float
    run_seconds: float


def export_c(graph: Graph, folder: Path, *, calibration: Reals, images: Reals, logits: Reals) -> CProof:
    """Write ``NAME.h``, ``NAME.c`` and ``main.c`` into ``folder``, compile them, and compare on ``images``.

    Args:
        graph: of the net.
        folder: of the files.
        calibration: images ``[N, ...]`` for the range of the input.
        images: to compare on ``[M, ...]``.
        logits: of the PyTorch net for ``images`` ``[M, classes]``.

    Raises:
        ExportError: the net cannot be written in C, there is no compiler, or the program's logits are others than the
            reference's.
    """
    net = integer_net(graph, calibration)
    write_c(net, folder)
    with tempfile.TemporaryDirectory() as place:
        begin = time.perf_counter()
        program = compile_program(net, folder, Path(place))
        compiled = time.perf_counter()
        found = run_program(program, image_codes(net, images), classes=logits.shape[1])
        finished = time.perf_counter()
    equal = int((found == run(net, images)).all(1).sum())
    if equal != len(images):
        raise ExportError(f"{graph.name}: {len(images) - equal} of {len(images)} images have other logits in C")
    return CProof(
        images=len(images),
        equal_logits=equal,
        equal_predictions=int((found.argmax(1) == logits.argmax(1)).sum()),
        largest_difference=float(np.abs(found * net.scale - logits).max()),
        compile_seconds=compiled - begin,
        run_seconds=finished - compiled,
    )


def write_c(net: IntegerNet, folder: Path) -> list[Path]:
    """Write the program of ``net`` into ``folder`` and return its files."""
    for name, text in c_sources(net).items():
        write_text(folder / name, text)
    return [folder / name for name in c_sources(net)]


def compile_program(net: IntegerNet, folder: Path, target: Path) -> Path:
    """Compile the sources of ``net`` in ``folder`` and return the program, which lies in the folder ``target``.

    Raises:
        ExportError: there is no compiler, or it refuses the sources.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise ExportError("the C program cannot be proven: no C compiler (cc, gcc or clang) is installed")
    name = c_name(net.name)
    program = target / name
    command = [compiler, *FLAGS, "-o", str(program), str(folder / "main.c"), str(folder / f"{name}.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ExportError(f"{folder / name}.c: {compiler} refuses it: {(done.stderr.splitlines() or ['?'])[0]}")
    return program


def run_program(program: Path, codes: NDArray[np.int16], *, classes: int) -> Integers:
    """Return the logits ``[N, classes]`` that ``program`` prints for images given as ``codes`` ``[N, ...]``.

    Raises:
        ExportError: it fails, or prints something else.
    """
    done = subprocess.run([str(program)], input=codes.tobytes(), capture_output=True, check=False)
    numbers = np.array(done.stdout.split(), np.int64)
    if done.returncode or len(numbers) != len(codes) * classes:
        raise ExportError(f"{program.name}: the C program ends with {done.returncode} and {len(numbers)} logits")
    return numbers.reshape(len(codes), classes)
