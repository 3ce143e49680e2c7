"""``ftnas doctor``: what is installed, computes or is missing. Torch is imported inside the command only."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ftnas import __version__
from ftnas.cli.findings import Finding, Part, Status, writable
from ftnas.cli.launcher_findings import NNI_PORT, launcher_findings
from ftnas.cli.mistakes import EXIT_MISTAKE, one_line_errors
from ftnas.cli.output import Json, console, print_json, print_table, table

COLOURS: Mapping[Status, str] = {"ok": "green", "note": "yellow", "wrong": "red"}
# What people who work on ftnas itself need, and nobody else.
_FOR_DEVELOPERS = "dev"
_COMPILERS = {"C": ("cc", "gcc", "clang"), "C++": ("c++", "g++", "clang++")}


Port = Annotated[int, typer.Option("--port", min=1, max=65534, help="The port that `ftnas launch` is to use.")]


def doctor(port: Port = NNI_PORT, as_json: Json = False) -> None:
    """Say which versions and devices there are, and what is missing, with the command that installs it.

    Ends with exit code 0 if ftnas can work, 2 if something that it needs is missing or does not work.
    """
    with one_line_errors():
        findings = [*_program(), *_packages(), *_devices(), *_tools(), *_folders(), *launcher_findings(port)]
        if as_json:
            print_json([asdict(finding) for finding in findings])
        else:
            _print(findings)
        if any(finding.status == "wrong" for finding in findings):
            raise typer.Exit(EXIT_MISTAKE)


def _print(findings: list[Finding]) -> None:
    listed = table("", "name", "", "found", "what to do")
    before = ""
    for finding in findings:
        status = Text(finding.status, style=COLOURS[finding.status])
        part = "" if finding.part == before else finding.part
        listed.add_row(part, finding.name, status, finding.found, finding.remedy)
        before = finding.part
    print_table(console(), listed)


def _program() -> Iterator[Finding]:
    yield Finding("ftnas", "ftnas", __version__)
    yield Finding("ftnas", "python", f"{platform.python_version()} ({sys.executable})")
    yield Finding("ftnas", "system", platform.platform())


def _packages() -> Iterator[Finding]:
    """Yield what ftnas declares to need: always, and for its extras."""
    try:
        declared = requires("ftnas") or []
    except PackageNotFoundError:
        yield Finding("packages", "ftnas", "not installed", "wrong", "pip install . in its folder")
        return
    for extra, texts in _by_extra(declared).items():
        for text in texts:
            yield _package(text, extra)


def _by_extra(declared: list[str]) -> dict[str, list[str]]:
    """Return the declared requirements by the extra that asks for them; those always needed first, under no name."""
    found: dict[str, list[str]] = {"": []}
    for text in declared:
        requirement, _, marker = text.partition(";")
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", marker)
        found.setdefault(extra[1] if extra else "", []).append(requirement.strip())
    return {extra: texts for extra, texts in found.items() if extra != _FOR_DEVELOPERS}


def _package(text: str, extra: str) -> Finding:
    """Look for one requirement, such as ``rich<16,>=14.2``."""
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    command = f'pip install "ftnas[{extra}]"' if extra else f'pip install "{text}"'
    name = f"{requirement.name} [{extra}]" if extra else requirement.name
    part: Part = "extras" if extra else "packages"
    lacking: Status = "note" if extra else "wrong"
    try:
        there = version(requirement.name)
    except PackageNotFoundError:
        return Finding(part, name, "not installed", lacking, command)
    if not requirement.specifier.contains(there, prereleases=True):
        return Finding(part, name, f"{there}, needed is {requirement.specifier}", lacking, command)
    return Finding(part, name, there)


def _devices() -> Iterator[Finding]:
    """Yield the processor and each GPU, after a convolution on it."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        import torch
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        yield Finding("devices", "torch", reason, "wrong", "install torch anew, see https://pytorch.org")
        return
    limit = os.environ.get("OMP_NUM_THREADS")
    threads = f"torch takes {torch.get_num_threads()} threads{f', OMP_NUM_THREADS={limit}' if limit else ''}"
    yield _tried("cpu", f"{platform.processor() or platform.machine()}, {usable} cores; {threads}")
    if not torch.cuda.is_available():
        build = "this torch is built for the CPU only" if torch.version.cuda is None else "torch finds none"
        yield Finding("devices", "gpu", build, "note", "only large searches need one")
        return
    for index in range(torch.cuda.device_count()):
        there = torch.cuda.get_device_properties(index)
        words = f"{there.name}, {there.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        yield _tried(f"cuda:{index}", words)


def _tried(device: str, words: str) -> Finding:
    """Return what is known of ``device``, and whether a convolution on it ends."""
    import torch
    from torch.nn.functional import conv2d

    try:
        conv2d(torch.ones(1, 1, 4, 4, device=device), torch.ones(1, 1, 3, 3, device=device)).sum().item()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        remedy = "install a torch that is built for this device, or use --set device=cpu"
        return Finding("devices", device, f"{words}: {reason}", "wrong", remedy)
    return Finding("devices", device, words)


def _tools() -> Iterator[Finding]:
    uses = {"C": "to check an exported C program", "C++": "for compiled nets in long campaigns"}
    for language, names in _COMPILERS.items():
        chosen = os.environ.get({"C": "CC", "C++": "CXX"}[language])
        place = next(filter(None, map(shutil.which, (chosen,) if chosen else names)), None)
        if place is None:
            yield Finding(
                "tools", f"{language} compiler", "not found", "note", f"needed only {uses[language]}: install gcc"
            )
        else:
            yield Finding("tools", f"{language} compiler", place)


def _folders() -> Iterator[Finding]:
    """Yield the folders that are written to besides those that a command names."""
    temporary = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.gettempdir()
    yield writable("compiled nets", Path(temporary), "choose another with TORCHINDUCTOR_CACHE_DIR")
    cache = os.environ.get("MPLCONFIGDIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    yield writable("fonts of figures", Path(cache), "choose another with MPLCONFIGDIR")
    yield writable("this folder", Path.cwd(), "runs go elsewhere with --run")
