"""The page of a comparison of nets."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from fake_run import FAULT, RATE, read, result, write

from ftnas.errors import RunError
from ftnas.report.net_comparison import verdict_sentence, write_comparison_report
from ftnas.report.results import Comparison


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftnas.report.figures.write_png", lambda drawing, path: path.write_bytes(b"PNG"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a comparison of a user's net with a baseline and a winner."""
    luck = random.Random(1)
    mine = result(
        luck, "MyNet", "MyNet", "own", strength=8e-3, flops=700_000, training="given", origin="my.py:MyNet <8 bits>"
    )
    mine["seed"] = None
    worse = result(luck, "resnet20", "resnet20", "baseline", strength=2e-3, flops=900_000, origin="trained here")
    better = result(luck, "found", "found", "winner", strength=3e-2, flops=400_000, origin="runs/r1")
    for row in (worse, better):
        row["differences"] = [
            {"rate": score["rate"], "mean": score["mean"] - own["mean"], "low": -0.5, "high": 0.5}
            for score, own in zip(row["rates"], mine["rates"], strict=True)
        ]
    top = {"fault": FAULT, "rate": RATE, "chips": 20, "confidence": 0.95, "test_images": 597, "data": "digits"}
    write(tmp_path / "comparison.json", {**top, "rows": [mine, worse, better]})
    return tmp_path


def content(folder: Path) -> Any:
    return read(folder / "comparison.json")


def test_the_page_says_how_each_net_came_to_its_weights(folder: Path) -> None:
    page = write_comparison_report(folder).read_text()
    assert page.count("my.py:MyNet &lt;8 bits&gt;") == 1
    assert "trained here" in page and "runs/r1" in page


def test_the_page_says_on_what_was_measured_and_by_which_rule(folder: Path) -> None:
    page = write_comparison_report(folder).read_text()
    assert "597 test images of digits and 20 chips" in page
    assert "95 % intervals of accuracy at rate 0.003 do not overlap" in page


def test_nets_are_better_or_worse_than_the_first(folder: Path) -> None:
    page = write_comparison_report(folder).read_text()
    assert re.findall(r'class="chip (\w+)"', page) == ["self", "behind", "beats"]
    sentence = verdict_sentence(Comparison.model_validate(content(folder)))
    assert sentence.endswith("it beats resnet20 and is beaten by found.")


def test_differences_are_in_points_at_the_rate_where_wins_are_called(folder: Path) -> None:
    rows = content(folder)["rows"]
    points = 100 * (rows[1]["rates"][0]["mean"] - rows[0]["rates"][0]["mean"])
    assert f"<td>{points:+.1f}<small>-50.0 to +50.0</small></td>" in write_comparison_report(folder).read_text()


def test_nets_without_differences_have_a_page(folder: Path) -> None:
    changed = content(folder)
    for row in changed["rows"]:
        row.pop("differences", None)
    write(folder / "comparison.json", changed)
    assert write_comparison_report(folder).exists()


def test_one_net_alone_has_a_page(folder: Path) -> None:
    write(folder / "comparison.json", {**content(folder), "rows": content(folder)["rows"][:1]})
    assert "MyNet keeps" in write_comparison_report(folder).read_text()


def test_rates_of_zero_alone_leave_the_figure_out(folder: Path) -> None:
    changed = content(folder)
    for row in changed["rows"]:
        row["rates"] = [{**row["rates"][0], "rate": 0.0}]
        row.pop("differences", None)
    write(folder / "comparison.json", {**changed, "rate": 0.0})
    assert "measured without faults only" in write_comparison_report(folder).read_text()


def test_the_figure_is_a_file_and_every_net_is_named_in_it(folder: Path) -> None:
    write_comparison_report(folder)
    drawn = (folder / "figures/accuracy_against_rate.svg").read_text()
    assert (folder / "figures/accuracy_against_rate.png").exists()
    assert all(f">{name}</text>" in drawn for name in ("MyNet", "resnet20", "found"))


@pytest.mark.parametrize(("change", "message"), [({"rows": []}, "rows: is empty"), ({"rate": "high"}, "rate: ")])
def test_a_file_that_is_no_comparison_is_one_line(folder: Path, change: dict[str, Any], message: str) -> None:
    write(folder / "comparison.json", {**content(folder), **change})
    with pytest.raises(RunError, match=rf"comparison\.json: {message}"):
        write_comparison_report(folder)
    assert not (folder / "report.html").exists()


def test_a_folder_without_a_comparison_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"comparison\.json: cannot be read"):
        write_comparison_report(tmp_path)
