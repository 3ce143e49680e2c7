"""``ftnas doctor``: what is there, what is missing, what to do, and the exit code that goes with it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_line import ftnas

from ftnas import __version__
from ftnas.cli import doctor, launcher_findings

PARTS = ["ftnas", "packages", "extras", "devices", "tools", "folders", "nni"]


def findings(code: int = 0, *arguments: object) -> dict[str, Any]:
    result = ftnas("doctor", "--json", *arguments)
    assert result.exit_code == code, (result.output, result.exception)
    return {finding["name"]: finding for finding in json.loads(result.stdout)}


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let ftnas need nothing but what a test puts into this list."""
    texts: list[str] = []
    monkeypatch.setattr(doctor, "requires", lambda name: texts)
    return texts


def test_this_environment_is_well_and_its_versions_are_told() -> None:
    found = findings()
    assert [name for name, finding in found.items() if finding["status"] == "wrong"] == []
    assert found["ftnas"]["found"] == __version__
    assert found["torch"]["found"] == importlib.metadata.version("torch")
    assert f"{torch.get_num_threads()} threads" in found["cpu"]["found"]
    assert list(dict.fromkeys(finding["part"] for finding in found.values())) == PARTS


def test_the_table_has_a_line_for_each_finding() -> None:
    result = ftnas("doctor")
    assert result.exit_code == 0
    names = [finding["name"] for finding in findings().values()]
    assert [name for name, line in zip(names, result.stdout.splitlines()[1:], strict=True) if name not in line] == []


def test_a_missing_extra_is_noted_with_the_command_that_installs_it(declared: list[str]) -> None:
    declared.append('no-such-package>=1; extra == "export"')
    found = findings()["no-such-package [export]"]
    assert (found["part"], found["status"]) == ("extras", "note")
    assert found["remedy"] == 'pip install "ftnas[export]"'


def test_a_missing_requirement_is_wrong_and_ends_with_code_2(declared: list[str]) -> None:
    declared.append("no-such-package<2,>=1")
    found = findings(2)["no-such-package"]
    assert (found["status"], found["remedy"]) == ("wrong", 'pip install "no-such-package<2,>=1"')


@pytest.mark.parametrize(("extra", "status", "code"), [("", "wrong", 2), ("; extra == 'nni'", "note", 0)])
def test_a_version_that_does_not_do_is_told_with_the_one_that_would(
    extra: str, status: str, code: int, declared: list[str]
) -> None:
    declared.append(f"rich>=999{extra}")
    found = findings(code)["rich [nni]" if extra else "rich"]
    assert found["status"] == status
    assert ">=999" in found["found"] and importlib.metadata.version("rich") in found["found"]


def test_what_only_developers_need_is_not_asked_for(declared: list[str]) -> None:
    declared.append("no-such-package; extra == 'dev'")
    assert "no-such-package [dev]" not in findings()


def test_a_program_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "requires", unknown)
    result = ftnas("doctor")
    assert result.exit_code == 2
    assert "pip install ." in result.stdout


def test_a_torch_that_does_not_import_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = findings(2)["torch"]
    assert (found["part"], found["status"]) == ("devices", "wrong")


def test_a_device_that_cannot_compute_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("no kernel image is available\nmore lines")

    monkeypatch.setattr(torch.nn.functional, "conv2d", broken)
    found = findings(2)["cpu"]
    assert found["found"].endswith(": no kernel image is available")


def test_each_gpu_is_named_and_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    memory = SimpleNamespace(name="H200", total_memory=139 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: memory)
    monkeypatch.setattr(
        doctor, "_tried", lambda device, words: tried.append(device) or doctor.Finding("devices", device, words)
    )
    found = findings()
    assert tried == ["cpu", "cuda:0", "cuda:1"]
    assert "H200, 139 GiB" in found["cuda:1"]["found"]


def test_compilers_that_are_not_there_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CC", "no-such-compiler")
    found = findings()
    assert [found[f"{language} compiler"]["status"] for language in ("C", "C++")] == ["note", "note"]


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "cache"))
    assert findings()["fonts of figures"]["status"] == "note"


def test_a_folder_in_which_no_file_can_be_made_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLCONFIGDIR", "/proc/1")
    found = findings()["fonts of figures"]
    assert (found["status"], "MPLCONFIGDIR" in found["remedy"]) == ("note", True)


# NNI as a launcher


def test_the_ports_of_nni_and_the_one_that_was_chosen_are_tried() -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        found = findings(0, "--port", port)
    assert (found[f"port {port}"]["status"], "--port" in found[f"port {port}"]["remedy"]) == ("note", True)
    assert f"process {os.getpid()}" in found[f"port {port}"]["found"]
    assert {"port 8080", f"port {port + 1}"} <= found.keys()


@pytest.mark.parametrize(
    ("package", "there", "name", "line"),
    [
        ("filelock", "3.20.0", "filelock for NNI", 'pip install "filelock<3.12"'),
        ("setuptools", "82.0.0", "nnictl", 'pip install "setuptools<82"'),
        ("typeguard", "4.4.0", "typeguard for NNI", 'pip install "typeguard<4.1.3,>=3.0.0"'),
    ],
)
def test_a_version_that_nni_cannot_work_with_is_noted_with_the_exact_command(
    package: str, there: str, name: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(launcher_findings, "version", lambda asked: there if asked == package else real(asked))
    found = findings()[name]
    assert (found["part"], found["status"]) == ("nni", "note")
    assert there in found["found"] and line in found["remedy"]


def test_without_nni_its_ports_and_servers_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(launcher_findings, "version", unknown)
    found = [finding for finding in findings().values() if finding["part"] == "nni"]
    assert [finding["name"] for finding in found] == ["NNI"]
    assert 'pip install "ftnas[nni]"' in found[0]["remedy"]


def test_a_server_of_nni_that_was_left_behind_is_told_with_the_command_that_ends_it(tmp_path: Path) -> None:
    script = tmp_path / "nni_node" / "main.js"
    script.parent.mkdir()
    script.write_text("import time; time.sleep(600)")
    words = [sys.executable, str(script), "--port", "18999", "--experiments-directory", str(tmp_path)]
    kept = subprocess.Popen(words)
    try:
        assert findings()[f"NNI server {kept.pid}"]["status"] == "ok"  # this process, which started it, lives
    finally:
        kept.kill()
        kept.wait()
    starter = f'p=$1; shift; exec 1>&2; "$@" & echo $! > {tmp_path}/pid'
    subprocess.run(["sh", "-c", starter, "sh", "-", *words], check=True)
    left = int((tmp_path / "pid").read_text())
    try:
        found = findings()[f"NNI server {left}"]
        assert (found["status"], found["found"]) == ("note", f"port 18999, {tmp_path}")
        assert f"kill {left}" in found["remedy"]
    finally:
        os.kill(left, signal.SIGKILL)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_that_cannot_be_written_to_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert findings()["NNI's own records"]["status"] == "note"


def test_a_home_in_which_no_file_can_be_made_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/1")
    found = findings()["NNI's own records"]
    assert (found["part"], found["status"], "HOME" in found["remedy"]) == ("nni", "note", True)
