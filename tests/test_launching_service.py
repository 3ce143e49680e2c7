"""NNI's training services: what reaches NNI of a file, how a trial starts there, and what is refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import lacking, refused
from launches import (
    ACCEPTED,
    free_port,
    written,
)

from ftnas.consent import VARIABLE
from ftnas.errors import LaunchError
from ftnas.pipeline import launching
from ftnas.pipeline.launching_service import ServiceSettings, load_service, trial_command

LOCAL = ServiceSettings(service={"platform": "local"})
REMOTE = {"platform": "remote", "nni_manager_ip": "127.0.0.1"}


def service(tmp_path: Path, **keys: Any) -> Path:
    file = tmp_path / "machines.yaml"
    file.write_text(yaml.safe_dump(keys))
    return file


def machine(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    (tmp_path / "key").touch()
    return {"host": "127.0.0.1", "user": "me", "ssh_key_file": str(tmp_path / "key")} | changes


def test_a_local_trial_is_one_process_with_the_home_of_its_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", "/home of me")
    line = trial_command(LOCAL, tmp_path / "with space")
    assert line.startswith(f"cd {Path.cwd()} && exec env ")
    assert "'HOME=/home of me'" in line and line.endswith(f"'{tmp_path.resolve()}/with space'")
    elsewhere = ServiceSettings(service=REMOTE, python="/opt/python", directory="/d", folder="/f")
    line = trial_command(elsewhere, tmp_path)
    assert line == "cd /d && exec /opt/python -P -m ftnas.pipeline.launching_trial /f"
    monkeypatch.setenv(VARIABLE, f"{Path.cwd()}/nets/mine.py{os.pathsep}/other.py")
    assert f"exec env {VARIABLE}=/d/nets/mine.py:/other.py /opt/python" in trial_command(elsewhere, tmp_path)


def test_machines_of_a_file_reach_nni_whole(tmp_path: Path) -> None:
    file = service(tmp_path, service=REMOTE | {"machineList": [machine(tmp_path)]})
    settings = load_service("remote", file)
    whole = launching.nni_config(
        settings, name="tiny", jobs=[{"name": "a", "key": "1"}], concurrency=2, folder=tmp_path, source=str(file)
    )
    assert whole["trainingService"]["machineList"][0]["port"] == 22
    assert whole["trialConcurrency"] == 2
    assert whole["tuner"]["name"] == "BatchTuner"
    assert whole["trainingService"]["trialCodeDirectory"] == str(tmp_path.resolve() / "nni" / "code")
    assert whole["experimentWorkingDirectory"].startswith(str(tmp_path.resolve()))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"service": REMOTE | {"machine_list": [{"hostt": "a"}]}}, ["NNI refuses it", "hostt"]),
        ({"service": REMOTE | {"machine_list": []}}, ["NNI refuses it", "at least one machine"]),
        ({"service": REMOTE | {"machine_list": [{"host": "a", "user": "b", "ssh_key_file": "no"}]}},
         ["NNI refuses it", "SSH key"]),
        ({"service": REMOTE | {"platform": "moon"}}, ["unknown training service 'moon'", "remote", "kubeflow"]),
        ({"service": {"platform": "remote"}}, ["service.nni_manager_ip: this key is required"]),
        ({"service": {}}, ["service.platform: this key is required"]),
        ({"service": {"platform": "local", "reuseMode": True}}, ["service.reuse_mode: NNI 3.0 fails with it"]),
        ({"service": {"platform": "local", "trial_command": "x"}}, ["service.trial_command: is set by ftnas"]),
        ({"service": {"platform": "local"}, "pyhton": "x"}, ["pyhton: unknown key", "python"]),
        ({}, ["service: this key is required"]),
    ],
)  # fmt: skip
def test_a_wrong_service_is_one_line_and_nothing_is_written(
    keys: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    config, file = written(tmp_path), service(tmp_path, **keys)
    line = refused(
        tmp_path, "launch", config, "--out", tmp_path / "out", "--service-config", file, ACCEPTED, "--port", free_port()
    )
    assert lacking(line, [file, *words]) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("moon", ["--service moon: is none of NNI's", "kubeflow", "local", "remote"]),
        ("remote", ["--service remote", "--service-config"]),
    ],
)
def test_a_service_without_its_file_is_refused(name: str, words: list[str], tmp_path: Path) -> None:
    line = refused(tmp_path, "launch", written(tmp_path), "--out", tmp_path / "out", "--service", name, ACCEPTED)
    assert lacking(line, words) == []


def test_a_file_of_another_service_than_was_asked_for_is_refused(tmp_path: Path) -> None:
    file = service(tmp_path, service={"platform": "local"})
    with pytest.raises(LaunchError, match=r"--service remote: .* describes local"):
        load_service("remote", file)


def test_a_password_is_warned_of(tmp_path: Path) -> None:
    one = {"host": "127.0.0.1", "user": "me", "password": "secret"}
    settings = ServiceSettings(service=REMOTE | {"machine_list": [one]})
    with pytest.warns(UserWarning, match="shows passwords"):
        launching.nni_config(settings, name="a", jobs=[{"name": "a"}], concurrency=1, folder=tmp_path, source="file")


def test_the_next_port_counts_where_nni_takes_it(tmp_path: Path) -> None:
    port = free_port()
    file = service(tmp_path, service=REMOTE | {"machine_list": [machine(tmp_path)]})
    config, out = written(tmp_path), tmp_path / "out"
    with socket.socket() as other:
        other.bind(("", port + 1))
        other.listen()
        line = refused(
            tmp_path, "launch", config, "--out", out, "--port", port, "--service-config", file, ACCEPTED
        )  # fmt: skip
    assert lacking(line, [f"--port {port}: for service remote", f"{port + 1} is taken"]) == []
