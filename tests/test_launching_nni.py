"""``ftnas launch`` with NNI's server and real trials: pairs, crashes, kills, a machine reached by SSH. All slow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import ftnas
from launched_trial import CRASHING, OUT_OF_ORDER, measured
from launches import NAMES, TINY, end_launches, free_port, launched, processes_with, wait_until, written

from ftnas.pipeline import launching_service
from ftnas.pipeline.launching_processes import is_free

pytestmark = pytest.mark.slow

SEEDS = list(range(4))
RESULTS = ("results.json", "results.csv", "results.md", "figure.svg")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    end_launches()


@pytest.fixture(scope="module")
def by_experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by_experiment")
    assert ftnas("experiment", written(folder), "--out", folder / "out").exit_code == 0
    return folder / "out"


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a launch and return its exit code and the last line of its standard error."""
    _, errors = process.communicate(timeout=600)
    return process.returncode, errors.strip().splitlines()[-1]


def test_a_launch_finds_what_the_experiment_does_and_keeps_to_its_folder(by_experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    out, port = tmp_path / "out", free_port()
    process = launched(
        written(tmp_path), out, "--port", port, "--concurrency", 2, "--json", HOME=str(tmp_path / "home")
    )
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert json.loads(printed) == json.loads((by_experiment / "results.json").read_text())
    assert f"http://127.0.0.1:{port}" in errors
    assert not (tmp_path / "home" / "nni-experiments").exists()
    for name in RESULTS:
        assert (out / name).read_bytes() == (by_experiment / name).read_bytes()
    for name in NAMES:
        for file in ("measured.json", "result.json", "weights.safetensors", "model.json", "training.yaml"):
            path = Path("trainings", name, file)
            assert (out / path).read_bytes() == (by_experiment / path).read_bytes(), path
    assert processes_with(str(tmp_path)) == []
    assert is_free(port)


def test_of_ten_launches_with_crashing_trials_no_result_is_mispaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching_service, "TRIAL_MODULE", "launched_trial")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    names = [f"{net}-seed{seed}" for net in ("cell", "resnet") for seed in SEEDS]
    for launch in range(10):
        crashing = {launch % 8, (3 * launch + 1) % 8}
        monkeypatch.setenv(CRASHING, " ".join(map(str, crashing)))
        out = tmp_path / str(launch)
        result = ftnas(
            "launch", written(tmp_path, seeds=SEEDS), "--out", out, "--port", free_port(), "--concurrency", 2,
            "--accept-open-web-server",
        )  # fmt: skip
        assert result.exit_code == 2, result.output
        last = result.stderr.strip().splitlines()[-1]
        assert f"{len(crashing)} of 8 trainings failed: " in last, last
        assert all(names[number] in last for number in crashing)
        for number, name in enumerate(names):
            file = out / "trainings" / name / "measured.json"
            assert file.exists() == (number not in crashing)
            assert not file.exists() or json.loads(file.read_text()) == measured(name)
        assert not (out / "results.json").exists()


def test_without_the_order_pairs_are_wrong_and_the_join_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching_service, "TRIAL_MODULE", "launched_trial")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv(OUT_OF_ORDER, "1")
    result = ftnas(
        "launch", written(tmp_path), "--out", tmp_path / "out", "--port", free_port(), "--concurrency", 2,
        "--accept-open-web-server",
    )  # fmt: skip
    assert result.exit_code == 2, result.output
    last = result.stderr.strip().splitlines()[-1]
    assert "NNI lists it as" in last and "nothing of it was taken" in last
    for name in NAMES:
        file = tmp_path / "out" / "trainings" / name / "measured.json"
        assert not file.exists() or json.loads(file.read_text()) == measured(name)


def test_a_net_that_crashes_in_its_trial_is_named_and_the_same_command_tries_it_again(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(
        "import os\nfrom pathlib import Path\nfrom torch import nn\n\n\ndef net():\n"
        f"    if 'NNI_TRIAL_SEQ_ID' in os.environ and not Path({str(tmp_path / 'mended')!r}).exists():\n"
        "        raise MemoryError('the machine is too small')\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))\n"
    )
    nets = {"mine": {"net": f"{own}:net"}, "resnet": {"net": "resnet20", "width": 0.125}}
    config, allowed = written(tmp_path, axes={"net": nets}), {"FTNAS_ALLOW_CODE": str(own)}
    first = launched(config, tmp_path / "out", "--port", free_port(), "--concurrency", 2, **allowed)
    _, errors = first.communicate(timeout=600)
    assert first.returncode == 2
    assert "mine-seed0: failed: " in errors and "too small" in errors
    assert "2 of 4 trainings failed: mine-seed0, mine-seed1" in errors.strip().splitlines()[-1]
    done = tmp_path / "out" / "trainings" / "resnet-seed0" / "measured.json"
    before = done.stat().st_mtime_ns
    (tmp_path / "mended").touch()
    code, last = ended(launched(config, tmp_path / "out", "--port", free_port(), **allowed))
    assert code == 0, last
    assert done.stat().st_mtime_ns == before
    assert (tmp_path / "out" / "results.json").exists()


def begun(out: Path) -> bool:
    """Return whether two trials of a launch are training."""
    return len(list(out.glob("trainings/*/checkpoint*"))) >= 2


@pytest.mark.parametrize("way", ["SIGKILL", "SIGTERM", "SIGINT", "its server's keeper", "its server", "both"])
def test_no_process_outlives_the_command_and_it_goes_on_afterwards(way: str, tmp_path: Path) -> None:
    base = TINY["base"] | {"training": TINY["base"]["training"] | {"epochs": 1000}}
    config, out, port = written(tmp_path, base=base), tmp_path / "out", free_port()
    process = launched(config, out, "--port", port, "--concurrency", 2)
    assert wait_until(lambda: begun(out) or process.poll() is not None, seconds=300)
    assert len(processes_with(str(out))) >= 5  # the command, what keeps the server, the server, two trials
    record = json.loads((out / "nni" / "server.json").read_text())
    if way.startswith("SIG"):
        process.send_signal(getattr(signal, way))
    if way == "both":
        process.kill()
    if way in ("its server's keeper", "both"):
        os.kill(record["session"], signal.SIGKILL)
    if way == "its server":
        os.kill(record["pid"], signal.SIGKILL)
    _, errors = process.communicate(timeout=600)
    expected = {"SIGTERM": 143, "SIGINT": 130, "SIGKILL": -9, "both": -9}.get(way, 2)
    assert process.returncode == expected, errors
    if expected > 0:
        assert processes_with(str(out)) == []
    assert wait_until(lambda: processes_with(str(out)) == [])
    assert wait_until(lambda: is_free(port))
    assert begun(out)
    again = launched(config, out, "--port", port, "--concurrency", 2)
    begun_again = wait_until(lambda: len(list(out.glob("nni/order/*/0"))) == 2 or again.poll() is not None, seconds=300)
    again.send_signal(signal.SIGTERM)
    code, last = ended(again)
    assert begun_again, (out / "nni" / "server.log").read_text()
    assert code == 143, last
    assert processes_with(str(out)) == []


def test_the_web_page_of_a_launch_that_ended_can_be_viewed(tmp_path: Path) -> None:
    config, out, port = written(tmp_path), tmp_path / "out", free_port()
    code, last = ended(launched(config, out, "--port", port, "--concurrency", 2))
    assert code == 0, last
    before = (out / "results.json").read_bytes()
    process = launched(config, out, "--port", port, "--view")
    assert wait_until(lambda: not is_free(port) or process.poll() is not None)
    script = (
        f"from urllib.request import urlopen; print(urlopen('http://localhost:{port}/api/v1/nni/trial-jobs').read())"
    )
    # In a process of its own, as tests use no network.
    assert wait_until(
        lambda: b"SUCCEEDED" in subprocess.run([sys.executable, "-c", script], capture_output=True).stdout
    )
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130
    assert processes_with(str(out)) == []
    assert (out / "results.json").read_bytes() == before


SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Let this machine be reached by SSH with a key, and give it a home of its own; as NNI's keys of a machine."""
    if SSHD is None:
        pytest.skip("no sshd here (Debian: openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where a service would have made it
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    (tmp_path / "there").mkdir()
    port = free_port()
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {tmp_path}/user.pub\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        f"Subsystem sftp internal-sftp\nSetEnv HOME={tmp_path}/there PIP_NO_INDEX=1 OMP_NUM_THREADS=1\n"
    )
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(tmp_path / "sshd_config")], stderr=subprocess.PIPE)
    try:
        time.sleep(1)
        if server.poll() is not None:
            assert server.stderr is not None
            pytest.skip(f"sshd does not start here: {server.stderr.read().decode().strip()}")
        yield {
            "host": "127.0.0.1", "port": port, "user": os.environ.get("USER") or "root",
            "ssh_key_file": str(tmp_path / "user"), "python_path": str(Path(sys.executable).parent),
        }  # fmt: skip
    finally:
        server.terminate()
        server.communicate()


def test_a_machine_reached_by_ssh_finds_the_same_and_nothing_of_it_is_left(
    machine: dict[str, Any], by_experiment: Path, tmp_path: Path
) -> None:
    file = tmp_path / "machines.yaml"
    service = {"platform": "remote", "nni_manager_ip": "127.0.0.1", "machine_list": [machine]}
    there = {"python": sys.executable, "folder": str(tmp_path / "there" / "results")}
    file.write_text(yaml.safe_dump({"service": service, **there}))
    process = launched(
        written(tmp_path), tmp_path / "out", "--port", free_port(), "--concurrency", 2, "--service-config", file
    )
    code, last = ended(process)
    assert code == 0, last
    for name in RESULTS:
        assert (tmp_path / "out" / name).read_bytes() == (by_experiment / name).read_bytes()
    for name in NAMES:
        assert not (tmp_path / "out" / "trainings" / name / "weights.safetensors").exists()
        assert (tmp_path / "there" / "results" / "trainings" / name / "weights.safetensors").exists()
    assert wait_until(lambda: [line for line in processes_with(str(tmp_path)) if "sshd" not in line] == [])
