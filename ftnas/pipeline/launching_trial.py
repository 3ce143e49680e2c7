"""A trial of NNI: it fetches its parameters in order, trains what they name, and echoes whose result it reports."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftnas.errors import FtnasError, LaunchError
from ftnas.pipeline.launching_server import STOP

FETCHED, GIVEN_UP = "fetched", "given up"

SECONDS_TO_WAIT = 120.0  # for the trial before this one to fetch
PAUSE = 0.05


def main() -> None:
    """Be the trial that NNI's environment variables name, in the folder that the first argument names."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    folder = Path(sys.argv[1])
    from ftnas.stopping import Stopped, noticing_signals

    try:
        with noticing_signals():
            _train(folder)
    except FtnasError as error:
        print(f"ftnas: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except Stopped as stopped:
        print(f"ftnas: {stopped}", file=sys.stderr)
        raise SystemExit(stopped.exit_code) from None


def _end_with_parent() -> None:
    """End this process when NNI's server, or its daemon on another machine, is gone."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _train(folder: Path) -> None:
    from ftnas.pipeline import launching_nni

    code = Path(os.environ["NNI_CODE_DIR"])
    _begin(folder, code)
    order = folder / "nni" / "order" / os.environ["NNI_EXP_ID"]
    given = fetch_in_order(order, int(os.environ["NNI_TRIAL_SEQ_ID"]), launching_nni.fetch)
    # Only now torch: the trials that come after this one wait for it to fetch.
    from ftnas.pipeline.launching_jobs import do_job

    launching_nni.report(do_job(folder, code, given))


def _begin(folder: Path, code: Path) -> None:
    """Make ``folder`` that of the experiment that came with the trial, on a machine where it is not there yet."""
    if folder.exists() and any(folder.iterdir()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for file in code.iterdir():
        part = folder / f".{file.name}.{os.getpid()}.part"
        part.write_bytes(file.read_bytes())
        part.replace(folder / file.name)


def fetch_in_order(
    order: Path, number: int, fetch: Callable[[], dict[str, Any]], *, seconds: float = SECONDS_TO_WAIT
) -> dict[str, Any]:
    """Return what ``fetch`` gives trial ``number``, asked for after all trials before it have asked.

    NNI 3.0 hands the next parameters to whichever trial asks first, but lists them under the trial that began first.
    Each trial leaves a marker when it has fetched. One that could not leaves a marker, too, since all after it would
    get what is not theirs.

    Args:
        order: the folder of markers, seen by all trials.
        number: of this trial, from 0.
        fetch: asks NNI.
        seconds: to wait for the trial before this one.

    Raises:
        LaunchError: the launch is being stopped, or the trial before has not fetched.
    """
    order.mkdir(parents=True, exist_ok=True)
    if (order / STOP).exists():
        raise LaunchError(f"trial {number}: the launch was stopped before it began")
    if number > 0 and not _has_fetched(order, number - 1, seconds):
        (order / str(number)).write_text(GIVEN_UP, encoding="utf-8")
        raise LaunchError(
            f"trial {number}: trial {number - 1} has not fetched its parameters within {seconds:g} s, and this one "
            "would get those; launch again to train it"
        )
    given = fetch()
    (order / str(number)).write_text(FETCHED, encoding="utf-8")
    return given


def _has_fetched(order: Path, number: int, seconds: float) -> bool:
    """Wait for trial ``number`` and return whether it has fetched."""
    marker, until = order / str(number), time.monotonic() + seconds
    while time.monotonic() < until:
        text = marker.read_text(encoding="utf-8") if marker.exists() else ""
        if text in (FETCHED, GIVEN_UP):
            return text == FETCHED
        time.sleep(PAUSE)
    return False


if __name__ == "__main__":
    main()
