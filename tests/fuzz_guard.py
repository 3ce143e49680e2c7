"""What an input may do: be read, or be refused in one line; in time, in memory, without touching anything else.

    python tests/fuzz_guard.py "run folder" 10000

tries so many random inputs on a reader, or on all, and ends with 1 at the first that does anything else.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from fuzz_edits import Edit, edits
from fuzz_readers import READERS, Reader
from hypothesis import HealthCheck, Phase, given, settings

from ftnas.errors import ConfigError, FtnasError

SECONDS = 10  # of the processor, for one input
WAITING = 120  # seconds by the clock: a busy machine is no fault of a reader's, a wait without end is
HANGING = 180  # seconds after which the process ends, since a loop in a library's C code hears no signal
MEMORY = 2**30  # bytes that one input may make the process grow by
MACHINE = 6 * 2**30  # bytes of addresses beyond which nothing is given, so that a mistake does not stop the machine


class Slow(BaseException):
    """An input took too long. Not an ``Exception``, so that no reader takes it for a damaged file."""


@contextmanager
def in_time() -> Iterator[None]:
    """Raise ``Slow`` if the block takes longer, and end the process if nobody is there to raise it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Slow(f"more than {SECONDS} s of work, or {WAITING} s of waiting")

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, WAITING))
    before = [signal.signal(number, stop) for number, _, _ in timers]
    try:
        for _, timer, seconds in timers:
            signal.setitimer(timer, seconds)
        faulthandler.dump_traceback_later(HANGING, exit=True)
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def check_refusal(error: FtnasError) -> None:
    """Raise an ``AssertionError`` if a refusal is more than one line, or more than a terminal should be shown."""
    text = str(error)
    lines = text.split("\n") if isinstance(error, ConfigError) else [text]  # a configuration has a line a mistake
    assert text and all(line.isprintable() for line in lines), f"not one line of plain text: {text!r}"
    assert max(map(len, lines)) < 2000, f"a line of {max(map(len, lines))} characters: {text[:200]!r}"


class Target:
    """A reader, and a folder with valid files for it, of which one input changes one."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.reader, self.folder = reader, folder
        reader.make(folder)
        self.valid = {name: (folder / name).read_bytes() for name in reader.targets}
        with quiet():
            reader.read(folder)
        self.restore()

    def restore(self) -> None:
        """Write the valid files again: a reader may cut a line off, and the last input is there."""
        for name, content in self.valid.items():
            (self.folder / name).write_bytes(content)

    def try_(self, changes: Sequence[Edit]) -> bool:
        """Read one changed input; return whether it was accepted."""
        names = list(self.valid)
        name = names[(changes[0].kind * 64 + changes[0].what) % len(names)]
        file = self.folder / name
        file.write_bytes(self.reader.targets[name](self.valid[name], changes))
        try:
            with quiet(), in_time():
                self.reader.read(self.folder)
        except FtnasError as error:
            check_refusal(error)
            return False
        finally:
            file.write_bytes(self.valid[name])
        return True


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out warnings: they are not what is looked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def peak() -> int:
    """Return the most memory that this process has held, in bytes, since it began or ``forget_peak`` was called."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def forget_peak() -> None:
    """Begin anew to look for the most, so that it is that of one input."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def fuzz(target: Target, inputs: int, *, remember: Path | None = None, repeatable: bool = False) -> tuple[int, int]:
    """Try ``inputs`` random ones; return how many were tried and how many of them were read as valid."""
    tried, accepted = 0, 0

    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        derandomize=repeatable,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(edits)
    def one(changes: list[Edit]) -> None:
        nonlocal tried, accepted
        if remember is not None:
            remember.write_text(repr(changes), encoding="utf-8")
        tried += 1
        forget_peak()
        before = peak()
        accepted += target.try_(changes)
        assert peak() < before + MEMORY, f"took {(peak() - before) >> 20} MiB"

    one()
    return tried, accepted


def limit_addresses() -> None:
    """Keep a mistake in a reader from taking the machine's memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + MACHINE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(name: str, inputs: int) -> None:
    """Fuzz one reader; what the process did last is in a file, should it be killed."""
    torch.set_num_threads(1)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        target = Target(READERS[name](), Path(folder))
        limit_addresses()
        remember = Path(tempfile.gettempdir()) / f"ftnas-fuzz-{os.getpid()}"
        print(f"{name}: the last input is in {remember}", flush=True)
        tried, accepted = fuzz(target, inputs, remember=remember)
        remember.unlink()
    grown = peak() >> 20
    print(f"{name}: {tried} inputs, {accepted} read, {time.monotonic() - start:.0f} s, {grown} MiB at most", flush=True)


if __name__ == "__main__":
    for reader in READERS if sys.argv[1] == "all" else sys.argv[1].split(","):
        main(reader, int(sys.argv[2]))
