"""The report's section on the layers of the winner."""

from __future__ import annotations

import csv
import io
import random
import re
from pathlib import Path

import pytest
from fake_run import LAYERS, fake_run, read, vulnerability, write

from ftnas.errors import RunError
from ftnas.report.exposure import MOST, shown_layers, vulnerability_figure
from ftnas.report.figures import figures
from ftnas.report.page import write_report
from ftnas.report.record import read_run
from ftnas.report.results import Vulnerability
from ftnas.report.run_tables import tables

FILE = "winner/vulnerability.json"


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftnas.report.figures.write_png", lambda drawing, path: path.write_bytes(b"PNG"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fake_run(tmp_path / "run")


def found(layers: int) -> Vulnerability:
    names = tuple(f"layer{number}" for number in range(layers))
    return Vulnerability.model_validate(vulnerability(random.Random(0), names))


def caption(run: Path) -> str:
    [figure] = [figure for figure in figures(read_run(run)) if figure.name == "vulnerability"]
    return figure.caption


def test_a_run_without_the_file_has_no_section_and_no_gap(run: Path) -> None:
    (run / FILE).unlink()
    page = write_report(run).read_text()
    assert "Vulnerability" not in page
    assert "This run is not finished" not in page


def test_every_layer_is_named_in_its_order(run: Path) -> None:
    drawn = vulnerability_figure(Vulnerability.model_validate(read(run / FILE)))
    names = [name for name in re.findall(r">([^<>]+)</text>", drawn) if name in LAYERS]
    assert tuple(names) == LAYERS


def test_the_longest_bar_is_that_of_the_layer_that_is_hurt_most(run: Path) -> None:
    drawn = vulnerability_figure(Vulnerability.model_validate(read(run / FILE)))
    bars = [
        float(end) - float(start) for start, end in re.findall(r'<polygon points="([\d.]+),[\d.]+ ([\d.]+),', drawn)
    ]
    for kind in (bars[0::2], bars[1::2]):
        assert kind == sorted(kind, reverse=True)
    assert bars[-1] == 0


def test_the_caption_says_how_many_layers_nothing_depends_on(run: Path) -> None:
    assert "1 of the 4 layers change no answer on any chip" in caption(run)
    content = read(run / FILE)
    write(run / FILE, {**content, "layers": content["layers"][:-1]})
    assert "no answer" not in caption(run)


def test_a_long_net_is_drawn_by_its_most_vulnerable_layers() -> None:
    net = found(MOST + 5)
    shown = shown_layers(net)
    left_out = [layer.changed.mean for layer in net.layers if layer not in shown]
    assert len(left_out) == 5
    assert max(left_out) <= min(layer.changed.mean for layer in shown)
    assert list(shown) == sorted(shown, key=net.layers.index)


def test_a_net_that_nothing_hurts_is_drawn(run: Path) -> None:
    content = read(run / FILE)
    calm = {"mean": 0.0, "low": 0.0, "high": 0.0}
    right = {"mean": content["clean"], "low": content["clean"], "high": content["clean"]}
    layers = [{**layer, "changed": calm, "accuracy": right} for layer in content["layers"]]
    drawn = vulnerability_figure(Vulnerability.model_validate({**content, "layers": layers}))
    assert "nan" not in drawn


def test_a_net_without_layers_that_can_fail_has_no_figure(run: Path) -> None:
    write(run / FILE, {**read(run / FILE), "layers": []})
    assert "Vulnerability" not in write_report(run).read_text()


def test_the_table_of_layers_has_every_digit(run: Path) -> None:
    [table] = [table for table in tables(read_run(run)) if table.name == "layers"]
    lines = list(csv.DictReader(io.StringIO(table.csv)))
    layers = read(run / FILE)["layers"]
    assert [(line["name"], float(line["changed_mean"])) for line in lines] == [
        (layer["name"], layer["changed"]["mean"]) for layer in layers
    ]
    assert table.markdown.count("\n") == 2 + len(layers)


def test_every_table_is_a_file_of_two_kinds(run: Path) -> None:
    write_report(run)
    names = {"front", "comparison", "layers", "ranking"}
    assert {path.name for path in (run / "tables").iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("csv", "md")
    }
    for file in (run / "tables").glob("*.md"):
        assert len({line.count("|") for line in file.read_text().splitlines()}) == 1


def test_a_corrupt_file_is_one_line_that_names_it(run: Path) -> None:
    write(run / FILE, {"fault": "x"})
    with pytest.raises(RunError, match=r"vulnerability\.json: rate: Field required; delete it"):
        read_run(run)


@pytest.mark.parametrize("share", [-0.1, 1.5, 10**400])
def test_a_share_that_is_none_is_one_line(share: float, tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    found = read(run / "winner/vulnerability.json")
    found["layers"][0]["changed"]["mean"] = share
    write(run / "winner/vulnerability.json", found)
    with pytest.raises(RunError, match=r"winner/vulnerability.json: layers.0.changed.mean: .*; delete it"):
        read_run(run)
