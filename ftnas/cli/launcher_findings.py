"""What ``ftnas doctor`` finds out about NNI as a launcher: versions, ports, servers left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from ftnas.cli.findings import Finding, writable

NNI_PORT = 8080  # NNI's own choice
_HANGS = "filelock<3.12"
_WITH_NNICTL = "setuptools<82"


def launcher_findings(port: int) -> Iterator[Finding]:
    """Yield what is to know before ``ftnas launch``, on ``port``; without NNI only that it is not there."""
    try:
        yield Finding("nni", "NNI", version("nni"))
    except PackageNotFoundError:
        yield Finding("nni", "NNI", "not installed", "note", 'only `ftnas launch` needs it: pip install "ftnas[nni]"')
        return
    yield _hanging()
    yield from _pins()
    yield _nnictl()
    yield from (_port(one) for one in dict.fromkeys((NNI_PORT, port, port + 1)))
    yield from _servers()
    records = writable("NNI's own records", Path.home() / "nni-experiments", "set HOME; `ftnas launch` does without")
    yield replace(records, part="nni")


def _hanging() -> Finding:
    from packaging.requirements import Requirement

    there = version("filelock")
    if Requirement(_HANGS).specifier.contains(there, prereleases=True):
        return Finding("nni", "filelock for NNI", there)
    return Finding("nni", "filelock for NNI", f"{there}: NNI would hang for ever", "note", f'pip install "{_HANGS}"')


def _pins() -> Iterator[Finding]:
    """Yield the requirements of NNI itself that are not met."""
    from packaging.requirements import Requirement

    for text in requires("nni") or []:
        needed = Requirement(text)
        if needed.name == "filelock" or (needed.marker is not None and not needed.marker.evaluate({"extra": ""})):
            continue
        command = f'pip install "{needed.name}{needed.specifier}"'
        try:
            there = version(needed.name)
        except PackageNotFoundError:
            yield Finding("nni", f"{needed.name} for NNI", "not installed", "note", command)
            continue
        if not needed.specifier.contains(there, prereleases=True):
            yield Finding("nni", f"{needed.name} for NNI", f"{there}, NNI asks for {needed.specifier}", "note", command)


def _nnictl() -> Finding:
    """Return whether NNI's command line works, which ftnas does without."""
    from packaging.requirements import Requirement

    try:
        there = version("setuptools")
    except PackageNotFoundError:
        there = ""
    if there and Requirement(_WITH_NNICTL).specifier.contains(there, prereleases=True):
        return Finding("nni", "nnictl", f"works, with setuptools {there}")
    found = f"does not work with setuptools {there}" if there else "does not work without setuptools"
    return Finding("nni", "nnictl", found, "note", f'ftnas does not use it; if you do: pip install "{_WITH_NNICTL}"')


def _port(port: int) -> Finding:
    from ftnas.pipeline.launching_processes import holder_of, is_free

    if is_free(port):
        return Finding("nni", f"port {port}", "free")
    return Finding("nni", f"port {port}", f"taken by {holder_of(port)}", "note", "ftnas launch --port with another")


def _servers() -> Iterator[Finding]:
    from ftnas.pipeline.launching_processes import is_orphan, nni_servers, option_of

    servers = nni_servers()
    if not servers:
        yield Finding("nni", "NNI servers", "none")
    for server in servers:
        where = f"port {option_of(server, 'port')}, {option_of(server, 'experiments-directory')}"
        if is_orphan(server):
            remedy = f"whoever started it is gone: kill {server.pid}"
            yield Finding("nni", f"NNI server {server.pid}", where, "note", remedy)
        else:
            yield Finding("nni", f"NNI server {server.pid}", where)
