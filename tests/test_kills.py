"""A real search killed again and again: what it ends with is what an uninterrupted one ends with, byte for byte."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftnas.training import read_checkpoint

SMOKE = Path(__file__).parents[1] / "experiments" / "smoke.yaml"
KILLS, SEED = 20, 8
# Times, versions and processes: of these files nothing is compared, or only what is left without them.
TIMED = {"environment.json", "checksums.sha256", "journal.log", "report.html", ".lock.json"}

pytestmark = pytest.mark.slow


def started(run: Path, *options: str) -> subprocess.Popen[str]:
    """Start a search of a few seconds on one thread; return when it holds its folder."""
    command = [sys.executable, "-m", "ftnas", "search", str(SMOKE), "--run", str(run), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    search = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while search.poll() is None and holder(run) != search.pid:
        time.sleep(0.02)
    return search


def holder(run: Path) -> int | None:
    try:
        return int(json.loads((run / ".lock.json").read_text())["pid"])
    except (OSError, ValueError):
        return None


def finish(search: subprocess.Popen[str], *, seconds: float = 600) -> str:
    """Wait for a search that must succeed; return what it said."""
    _, said = search.communicate(timeout=seconds)
    assert search.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(started(run))
    return run


def results(run: Path) -> dict[str, Any]:
    """Return all that a run leaves, without times."""
    return {
        str(path.relative_to(run)): timeless(path)
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in TIMED and ".tfevents." not in path.name
    }


def timeless(path: Path) -> Any:
    if path.name == "history.json":
        return [{key: value for key, value in row.items() if key != "seconds"} for row in json.loads(path.read_text())]
    if path.name == "metrics.jsonl":
        rows = map(json.loads, path.read_text().splitlines())
        return [(row["tag"], row["step"], row["value"]) for row in rows if not row["tag"].endswith("/seconds")]
    return path.read_bytes()


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def group_members(group: int) -> list[int]:
    """Return the processes that were started by a search, itself included, and are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == group and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def test_killed_at_twenty_random_moments_a_search_ends_with_the_same_files(whole: Path, tmp_path: Path) -> None:
    luck, kills, rounds = random.Random(SEED), 0, 0
    while kills < KILLS:
        run = tmp_path / f"round{rounds}"
        while True:
            search = started(run)
            pause = luck.uniform(0.0, 1.5)
            try:
                search.communicate(timeout=pause if kills < KILLS else 600)
            except subprocess.TimeoutExpired:
                search.kill()
                search.communicate()
                kills += 1
                continue
            assert search.returncode == 0
            break
        assert differences(results(run), results(whole)) == []
        subprocess.run(["sha256sum", "--quiet", "--check", "checksums.sha256"], cwd=run, check=True)
        rounds += 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_by_a_signal_a_search_says_how_to_go_on_and_does(number: int, whole: Path, tmp_path: Path) -> None:
    luck, run, stops = random.Random(number), tmp_path / "run", 0
    for _ in range(4):
        search = started(run)
        time.sleep(luck.uniform(0.2, 1.5))
        search.send_signal(number)
        _, said = search.communicate(timeout=60)
        if search.returncode:
            assert search.returncode == 128 + number
            last = said.splitlines()[-1]
            assert last.startswith("ftnas: stopped by ")
            assert last.endswith("; nothing is half-written, and the same command goes on from here")
            stops += 1
    finish(started(run))
    assert stops >= 2
    assert differences(results(run), results(whole)) == []


@pytest.fixture
def with_workers(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A search whose trainings are in two processes at the moment."""
    search = started(tmp_path / "run", "--set", "workers=2", "--set", "finalists.epochs=500")
    try:
        while search.poll() is None and len(list(tmp_path.rglob("trainings/*/checkpoint.safetensors"))) < 2:
            time.sleep(0.02)
        assert len(group_members(search.pid)) >= 3
        yield search
    finally:
        search.kill()
        search.communicate()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are counted in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_search(number: int, with_workers: subprocess.Popen[str], tmp_path: Path) -> None:
    with_workers.send_signal(number)
    _, said = with_workers.communicate(timeout=60)
    assert with_workers.returncode == (128 + number if number != signal.SIGKILL else -9), said
    ends = time.monotonic() + 30
    while group_members(with_workers.pid) and time.monotonic() < ends:
        time.sleep(0.1)
    assert group_members(with_workers.pid) == []
    assert "Traceback" not in said
    steps = [read_checkpoint(file)[1]["epoch"] for file in tmp_path.rglob("trainings/*/checkpoint.safetensors")]
    # Both were in the middle of an epoch nearly for sure, and saved there.
    assert number == signal.SIGKILL or any(steps)
