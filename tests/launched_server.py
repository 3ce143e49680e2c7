"""In place of the process that keeps NNI's server: it tells what the plan of a test says, and may not want to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = "LAUNCHED_SCRIPT"  # the environment variable that names a file of events as JSON


def main() -> None:
    sys.stdin.readline()
    script = json.loads(Path(os.environ[SCRIPT]).read_text())
    for event in script["events"]:
        print(json.dumps({"pid": os.getpid(), "session": os.getsid(0), "experiment": "tested", **event}), flush=True)
    if script.get("stubborn"):
        subprocess.Popen(["sleep", "600"])
        time.sleep(600)
    sys.stdin.read()


if __name__ == "__main__":
    main()
