"""Searches with workers, as processes: the same results, whoever is killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from board_support import wait_until
from quick_runs import quick, quick_run, results
from test_study_sharing import free_port

from ftnas.files import read_json
from ftnas.pipeline.config import load_config
from ftnas.pipeline.run_folder import open_run
from ftnas.space import load_space

pytestmark = pytest.mark.slow

# Enough scoring to be in the middle of it.
LONGER = {"space": "digits", "search": {"trials": 12}, "scoring": {"images": 60, "chips": 6, "leaders": 3,
          "fresh_chips": 2, "perturbation_completions": 0}}  # fmt: skip
STUDY = ("study/candidates.json", "study/leaders.json", "study/order.json")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that one process made."""
    return quick_run(tmp_path_factory.mktemp("alone"), **LONGER)


class Started:
    """A command of ftnas in a process group of its own."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "ftnas", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def finish(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=600)
        return self.process.returncode, out, err

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def started() -> Iterator[Any]:
    """Yield what starts commands; those that still run are ended."""
    commands: list[Started] = []

    def start(*arguments: object) -> Started:
        commands.append(Started(*arguments))
        return commands[-1]

    yield start
    for command in commands:
        command.end()


def lines_of(run: Path) -> list[dict[str, Any]]:
    file = run / "study" / "tasks.log"
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


def signs(run: Path) -> dict[str, dict[str, Any]]:
    """Return what workers said of themselves, by name."""
    remarks = [line["user_attr"] for line in lines_of(run) if line["op_code"] == 2]
    return {key: value for remark in remarks for key, value in remark.items() if key.startswith("worker ")}


def scored(run: Path) -> list[str]:
    told = [line.get("user_attr", {}).get("score") for line in lines_of(run) if line["op_code"] == 8]
    return [score["work"] for score in told if score]


def weights_of(run: Path) -> Path:
    return run / "supernet" / "supernet.safetensors"


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text(encoding="ascii")


def same_study(run: Path, other: Path) -> bool:
    return all((run / name).read_bytes() == (other / name).read_bytes() for name in STUDY)


def test_two_workers_of_whom_one_is_killed_give_the_results_of_one(alone: Path, tmp_path: Path, started: Any) -> None:
    search = started("search", quick(tmp_path, **LONGER), "--run", tmp_path / "run", "--workers", 2)
    wait_until(lambda: len(scored(tmp_path / "run")) >= 2, seconds=300)
    victim = next(iter(signs(tmp_path / "run").values()))
    os.kill(victim["process"], signal.SIGKILL)
    code, _, err = search.finish()
    assert code == 0, err
    assert results(tmp_path / "run") == results(alone)
    assert same_study(tmp_path / "run", alone)
    names = [name for name in scored(tmp_path / "run") if name.endswith("-0-6")]
    assert len(set(names)) == len(names) == 12


def test_a_killed_search_takes_its_workers_with_it_and_goes_on_to_the_same_results(
    alone: Path, tmp_path: Path, started: Any
) -> None:
    arguments = ("search", quick(tmp_path, **LONGER), "--run", tmp_path / "run", "--workers", 2)
    search = started(*arguments)
    wait_until(lambda: len(scored(tmp_path / "run")) >= 2, seconds=300)
    search.process.kill()
    workers = [sign["process"] for sign in signs(tmp_path / "run").values()]
    wait_until(lambda: not any(map(alive, workers)), seconds=60)
    before = scored(tmp_path / "run")
    code, _, err = started(*arguments).finish()
    assert code == 0, err
    assert results(tmp_path / "run") == results(alone)
    assert same_study(tmp_path / "run", alone)
    names = [name for name in scored(tmp_path / "run") if name.endswith("-0-6")]
    assert len(set(names)) == len(names) == 12  # those that had a score were not scored again
    assert names[: len(before)] == before


def test_workers_on_another_machine_and_a_server_that_is_started_anew(
    alone: Path, tmp_path: Path, started: Any
) -> None:
    run, copy, url = tmp_path / "run", tmp_path / "copy", f"grpc://127.0.0.1:{(port := free_port())}"
    shutil.copytree(alone / "supernet", run / "supernet")
    for name in ("config.yaml", "space.yaml"):
        shutil.copyfile(alone / name, run / name)
    shutil.copytree(run, copy)

    def serve() -> Started:
        server: Started = started("storage-server", run, "--port", port)
        assert server.process.stdout is not None
        assert url in server.process.stdout.readline()
        return server

    server = serve()
    worker = started("worker", copy, "--storage", url)
    assert worker.process.stderr is not None
    assert worker.process.stderr.readline().startswith("waiting for tasks of ftnas quick")
    search = started("search", quick(tmp_path, **LONGER), "--run", run, "--storage", url)
    journal = run / "study" / "journal.log"
    wait_until(lambda: journal.exists() and journal.read_text().count('"finished trials":') > 3, seconds=300)
    server.end()
    time.sleep(1)
    serve()
    code, _, err = search.finish()
    assert code == 0, err
    assert same_study(run, alone)
    code, out, err = worker.finish()
    assert code == 0, err
    assert re.fullmatch(r"scored: \d+\n", out)
    assert not (run / "study" / "tasks.log").exists()


def test_a_worker_waits_for_the_supernet_and_gives_back_what_it_is_stopped_in(tmp_path: Path, started: Any) -> None:
    run = tmp_path / "run"
    config = quick(tmp_path, **{**LONGER, "search": {"trials": 60, "sampler": "random"}})
    loaded = load_config(config)
    open_run(run, loaded, load_space(loaded.space))
    worker = started("worker", run)
    assert worker.process.stderr is not None
    assert worker.process.stderr.readline() == f"waiting for {weights_of(run)}, which the search has not trained yet\n"
    search = started("search", config, "--run", run, "--workers", 2)
    wait_until(lambda: len(scored(run)) >= 1 and len(signs(run)) == 3, seconds=300)
    time.sleep(1)
    worker.process.send_signal(signal.SIGTERM)
    code, _, err = worker.finish()
    assert code == 143
    assert "stopped by SIGTERM" in err
    wait_until(lambda: any(sign.get("left") for sign in signs(run).values()))
    assert search.process.poll() is None  # it does without


def test_a_stopped_search_ends_its_workers_and_goes_on(alone: Path, tmp_path: Path, started: Any) -> None:
    arguments = ("search", quick(tmp_path, **LONGER), "--run", tmp_path / "run", "--workers", 2)
    search = started(*arguments)
    wait_until(lambda: len(scored(tmp_path / "run")) >= 2, seconds=300)
    os.killpg(search.process.pid, signal.SIGINT)  # as Ctrl-C in a terminal, which reaches the workers, too
    code, _, err = search.finish()
    assert code == 130, err
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert not any(alive(sign["process"]) for sign in signs(tmp_path / "run").values())
    assert started(*arguments).finish()[0] == 0
    assert same_study(tmp_path / "run", alone)


def test_a_replayed_run_has_the_candidates_of_the_recorded_one(alone: Path, tmp_path: Path, started: Any) -> None:
    config = quick(tmp_path, **{**LONGER, "search": {"trials": 12, "sampler": "random"}})
    run = tmp_path / "run"
    code, _, err = started("search", config, "--run", run, "--workers", 2, "--replay", alone).finish()
    assert code == 0, err
    assert read_json(run / "study" / "candidates.json") == read_json(alone / "study" / "candidates.json")


FETCH = """
import sys, urllib.error, urllib.request
study, board = sys.argv[1:]
print(b"ftnas" in urllib.request.urlopen(study + "api/studies").read())
print(urllib.request.urlopen(study).status, urllib.request.urlopen(board).status)
try:
    urllib.request.urlopen(urllib.request.Request(study + "api/studies/0", method="DELETE"))
except urllib.error.HTTPError as error:
    print(error.code)
"""


def test_the_dashboard_shows_a_run_changes_nothing_and_leaves_no_process(alone: Path, started: Any) -> None:
    pytest.importorskip("optuna_dashboard", reason="pip install 'ftnas[dashboard]'")
    before = (alone / "study" / "journal.log").read_bytes()
    shown = started("dashboard", alone)
    assert shown.process.stdout is not None
    addresses = [shown.process.stdout.readline().split()[-1] for _ in range(2)]
    assert all(address.startswith("http://127.0.0.1:") for address in addresses)
    fetched = subprocess.run([sys.executable, "-c", FETCH, *addresses], capture_output=True, text=True, check=True)
    assert fetched.stdout.split() == ["True", "200", "200", "403"]
    shown.process.send_signal(signal.SIGTERM)
    assert shown.finish()[0] == 143
    with pytest.raises(ProcessLookupError):
        os.killpg(shown.process.pid, 0)  # nobody is left in its group
    assert (alone / "study" / "journal.log").read_bytes() == before


def test_the_benchmark_of_scaling_prints_a_verdict_for_every_goal(alone: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "scaling.py"
    options = ["--run", str(alone), "--trials", "12", "--rounds", "1", "--out", str(tmp_path)]
    command = [sys.executable, str(script), "workers", "storages", "controller", *options]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text.count(" met ") + text.count(" missed ") >= 3 + 3 + 6
    assert {file.name for file in tmp_path.iterdir()} >= {"workers.json", "storages.json", "controller.json"}
