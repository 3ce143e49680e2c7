"""In place of a trial: it fetches and echoes as one does, and trains nothing. Some crash, some are late."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from ftnas.pipeline import launching_nni
from ftnas.pipeline.launching_trial import fetch_in_order

CRASHING = "LAUNCHED_CRASHING"  # numbers of trials that crash when they have fetched
OUT_OF_ORDER = "LAUNCHED_OUT_OF_ORDER"  # the first trial fetches last


def main() -> None:
    number = int(os.environ["NNI_TRIAL_SEQ_ID"])
    if OUT_OF_ORDER in os.environ:
        time.sleep(8 if number == 0 else 0)
        given = launching_nni.fetch()
    else:
        given = fetch_in_order(
            Path(sys.argv[1]) / "nni" / "order" / os.environ["NNI_EXP_ID"], number, launching_nni.fetch
        )
    if str(number) in os.environ.get(CRASHING, "").split():
        os._exit(3)
    launching_nni.report({"default": 0.5, **given, "measured": measured(str(given["name"]))})


def measured(name: str) -> dict[str, object]:
    """Return a result that tells whose it is: its accuracy has the letters of the name as digits."""
    own = int.from_bytes(name.encode(), "big") % 10**12 / 10**12
    faults = [{"fault": "weights.bit_flip", "rate": 0.01, "chips": [own, own]}]
    return {"clean": own, "zeros": 0.0, "sharpness": 0.0, "faults": faults}


if __name__ == "__main__":
    main()
