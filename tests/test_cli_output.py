"""How commands print: whole and plain into pipes, in JSON where asked, on terminals of few characters too."""

from __future__ import annotations

import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_run import fake_run
from small_nets import digits, small_net
from typer.testing import CliRunner

from ftnas import campaign, cli
from ftnas.cli.main import app
from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.output import allow_any_text, console, print_json, print_table, print_warning, shows, table
from ftnas.cli.printing import print_chips, print_comparison, print_single, print_sites, print_summary
from ftnas.faults import sites
from ftnas.pipeline.run import RunSummary

RATE = {"rate": 0.003, "mean": 0.9, "low": 0.88, "high": 0.92, "chips": [0.9]}
ROW = {"label": "found [w8]", "training": "plain", "flops": 10**6, "parameters": 5154, "clean": 0.95, "rates": [RATE]}


def summary(folder: Path) -> RunSummary:
    comparison = {"fault": "features.mac_bit_bias", "chips": 20, "rows": [ROW, ROW | {"label": "resnet20 x 0.2"}]}
    tau = {"value": 0.69, "low": 0.36, "high": 0.9}
    ranking = {"n": 8, "tau_faulty": tau, "gain_over_random": {"n": 4, "mean": 0.1, "low": 0.05, "high": 0.2}}
    return RunSummary(folder, ROW, ranking, comparison, ["[bold] is kept :smile:"], folder / "report.html")


def test_what_goes_into_a_pipe_is_neither_cut_nor_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table("name", "words")
    rows.add_row("x", "word " * 60 + "end")
    print_table(console(), rows, "a title that is longer than its table")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["a title that is longer than its table", "name  words", "x     " + "word " * 60 + "end"]


def test_brackets_and_colons_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_warning(console(), "[red]features.bit_flip:1e-3[/] :smile:")
    assert capsys.readouterr().out == "warning: [red]features.bit_flip:1e-3[/] :smile:\n"


def test_a_summary_is_printed_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    print_summary(summary(tmp_path))
    printed = " ".join(capsys.readouterr().out.split())
    words = ["found [w8]", "90.0 ± 2.0", "+0.69", "+10.0 points", "warning: [bold] is kept :smile:", "report: "]
    assert [word for word in words if word not in printed] == []


@pytest.mark.parametrize("show", [print_summary, print_comparison])
def test_a_summary_as_json_is_what_the_run_folder_holds(
    show: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    content = summary(tmp_path)
    show(content, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["comparison"] == content.comparison
    assert (found["ranking"], found["warnings"]) == (content.ranking, content.warnings)
    assert (found["folder"], found["report"]) == (str(tmp_path), str(tmp_path / "report.html"))


@pytest.fixture(scope="module")
def measured() -> tuple[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    net = small_net()
    net(digits().train_images[:100])
    return net.eval(), (digits().test_images[:20], digits().test_labels[:20])


def test_campaigns_as_json_hold_their_rows(measured: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    net, images = measured
    chips = campaign.run(net, images, "weights.bit_flip:1e-2", chips=2)
    print_chips(chips, tmp_path, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["results"], found["rows"]) == (str(tmp_path), campaign.rows(chips))
    single = campaign.run_single(net, images, n=20)
    print_single(single, tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["rows"] == campaign.rows(single)


def test_sites_as_json_hold_what_the_table_shows(measured: Any, capsys: pytest.CaptureFixture[str]) -> None:
    net, _ = measured
    found = sites(net)
    print_sites(found, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [site.name for site in found]
    weight, output = rows[0], rows[1]
    assert (weight["shape"], weight["values"], weight["bits_total"]) == ([4, 1, 3, 3], 36, 288)
    assert (output["shape"], output["values"]) == (None, None)


def test_json_is_ascii_where_the_terminal_knows_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, kept in (("utf-8", "±"), ("ascii", "\\u00b1")):
        bytes_ = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, encoding=encoding))
        print_json({"what": "±"})
        sys.stdout.flush()
        assert kept.encode() in bytes_.getvalue()
        assert json.loads(bytes_.getvalue()) == {"what": "±"}


@pytest.mark.parametrize("arguments", [("primitives",), ("faults",), ("show", "RUN")])
def test_a_terminal_that_knows_only_ascii_is_served(arguments: tuple[str, ...], tmp_path: Path) -> None:
    words = [str(fake_run(tmp_path / "run")) if word == "RUN" else word for word in arguments]
    result = CliRunner(charset="ascii").invoke(app, words)
    assert (result.exit_code, result.exception, result.stderr) == (0, None, "")
    assert result.stdout_bytes.isascii()
    assert ("+-" in result.stdout) == (arguments[0] == "show")


def test_a_mistake_is_told_to_a_terminal_that_lacks_its_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(told, encoding="ascii"))
    allow_any_text()
    print("ftnas: runs/ä: is neither", file=sys.stderr, flush=True)
    assert told.getvalue() == b"ftnas: runs/?: is neither\n"


@pytest.mark.parametrize(("encoding", "expected"), [("utf-8", True), ("ascii", False), ("latin-1", False)])
def test_it_is_known_what_a_stream_can_show(encoding: str, expected: bool) -> None:
    assert shows("2ⁿ", io.TextIOWrapper(io.BytesIO(), encoding=encoding)) is expected


def test_a_warning_of_ftnas_is_one_line_without_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="of another package") as others:
        before = warnings.showwarning
        with one_line_errors():
            warnings.warn_explicit("the file has changed", UserWarning, str(Path(cli.__file__).parent / "x.py"), 3)
            warnings.warn_explicit("of another package", UserWarning, "/elsewhere/x.py", 3)
        assert warnings.showwarning is before
    assert len(others) == 1
    assert capsys.readouterr().err == "ftnas: warning: the file has changed\n"
