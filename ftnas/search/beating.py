"""Signs of life that are given while the work goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

BEAT_SECONDS = 5.0
"""Between two signs of life of a worker, and of a search."""

DEAD_SECONDS = 30.0
"""Without a sign of life, after which a worker is taken for dead."""


@contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """Call ``beat`` at once, and then every ``BEAT_SECONDS`` until the block ends."""
    beat()
    ended = threading.Event()
    teller = threading.Thread(target=_tell, args=(beat, ended), daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join(timeout=1)  # no longer: it may wait for a storage that is away


def _tell(beat: Callable[[], None], ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        # Whatever it is, as a channel that the thread that works has just closed: that one meets it, too, and says it.
        with suppress(Exception):
            beat()
