"""Chromium without a window, asked through its debugging pipe: what a page looks like to the one who opens it."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
SECONDS = 30.0  # of silence before a test gives up
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-dev-shm-usage",
)  # fmt: skip


class Page:
    """One tab; ``events`` are all that the browser has told of it so far."""

    def __init__(self, to: int, answers: int) -> None:
        self.events: list[dict[str, Any]] = []
        self._to, self._answers = to, answers
        self._read = b""
        self._sent = 0
        self._session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; what comes in between is kept as events."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._answers], [], [], SECONDS)
            assert ready, f"the browser has said nothing for {SECONDS} s"
            part = os.read(self._answers, 1 << 20)
            assert part, "the browser has ended"
            self._read += part
        text, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, page: Path, *, width: int = 1200, scheme: str = "light") -> None:
        """Open a file in a window of ``width`` pixels, in a ``light`` or ``dark`` colour scheme."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )  # fmt: skip
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.ask("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, as plain data."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, path: Path, *, top: int = 0, height: int = 900) -> None:
        """Write a picture of so many pixels of the page from ``top`` on."""
        width = self.value("innerWidth")
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """Return every error that the console would show."""
        logged = [event["params"]["entry"] for event in self._of("Log.entryAdded")]
        said = [event["params"] for event in self._of("Runtime.consoleAPICalled")]
        thrown = [str(event["params"]) for event in self._of("Runtime.exceptionThrown")]
        return [
            *(entry["text"] for entry in logged if entry["level"] == "error"),
            *(str(call["args"]) for call in said if call["type"] in ("error", "assert")),
            *thrown,
        ]

    def fetched(self) -> list[str]:
        """Return the address of everything that was asked for."""
        return [event["params"]["request"]["url"] for event in self._of("Network.requestWillBeSent")]

    def _of(self, method: str) -> list[dict[str, Any]]:
        self.value("0")  # what the browser has to say arrives before this answer
        return [event for event in self.events if event["method"] == method]


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """Start a browser with a fresh ``profile`` folder, and end it with the block."""
    assert CHROMIUM
    (theirs, to), (answers, back) = os.pipe(), os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs, back)]
    # It reads commands from descriptor 3 and answers on 4; numbers above 9 are more than a shell can redirect.
    start = f"import os, sys; os.dup2({ends[0]}, 3); os.dup2({ends[1]}, 4); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", start, CHROMIUM, *QUIET, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    process = subprocess.Popen(command, pass_fds=ends, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    for end in (theirs, back, *ends):
        os.close(end)
    try:
        yield Page(to, answers)
    finally:
        process.terminate()
        process.wait(timeout=20)
        os.close(to)
        os.close(answers)
