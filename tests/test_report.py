from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from fake_run import FAULT, RATE, fake_run, read, write

from ftnas.errors import RunError
from ftnas.report import wording
from ftnas.report.axes import Scale, linear_ticks, log_ticks, spread, spread_ratio
from ftnas.report.figures import figures
from ftnas.report.labels import Label, at_ends, beside
from ftnas.report.page import write_report
from ftnas.report.record import PARTS, read_run
from ftnas.report.results import RateScore, mean_of
from ftnas.report.tables import comparison_csv, comparison_markdown
from ftnas.report.verdict import headline, outcome, tally, verdicts

STAGES = ("start", "supernet", "study", "winner", "end")
FILES = ("environment.json", *PARTS, "warnings.json")


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """PNGs have a test of their own, test_report_raster."""
    monkeypatch.setattr("ftnas.report.figures.write_png", lambda drawing, path: path.write_bytes(b"PNG"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "digits"))


class Page(HTMLParser):
    """Collects what a browser would load, and checks that elements close in order."""

    VOID = ("meta", "link", "br", "img", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.loaded += [str(named[key]) for key in ("src", "href") if named.get(key) and tag != "a"]
        self.ids += [str(named["id"])] if "id" in named else []
        self.loaded += [tag] if tag in ("script", "iframe", "object") else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def rate_score(low: float, high: float) -> RateScore:
    return RateScore(rate=RATE, mean=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_has_a_report_at_every_stage(tmp_path: Path, stage: str) -> None:
    page = write_report(fake_run(tmp_path / "r", until=stage)).read_text()
    assert page.count("<section") == 8 + (stage == "end")
    assert ("This run is not finished" in page) == (stage != "end")


@pytest.mark.parametrize("file", PARTS)
def test_a_report_names_the_part_that_is_missing(copy: Path, file: str) -> None:
    (copy / file).unlink()
    assert f"<li>{PARTS[file].replace(chr(39), '&#39;')}</li>" in write_report(copy).read_text()


def test_the_page_is_well_formed_and_loads_nothing(run: Path) -> None:
    page = Page()
    page.feed(write_report(run).read_text())
    assert page.open == []
    assert page.loaded == ["data:,"]
    assert len(page.ids) == len(set(page.ids))


def test_the_page_forbids_the_browser_to_load_anything(run: Path) -> None:
    assert "default-src 'none'" in write_report(run).read_text()


def test_a_report_is_the_same_bytes_every_time(copy: Path) -> None:
    first = write_report(copy).read_bytes()
    pictures = {path.name: path.read_bytes() for path in (copy / "figures").iterdir()}
    assert write_report(copy).read_bytes() == first
    assert pictures == {path.name: path.read_bytes() for path in (copy / "figures").iterdir()}


def test_every_figure_is_a_file_as_well_formed_svg_and_as_png(copy: Path) -> None:
    write_report(copy)
    names = {figure.name for figure in figures(read_run(copy))}
    files = {path.name for path in (copy / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in names for kind in ("svg", "png")}
    assert len(names) == 11
    for name in names:
        assert ET.parse(copy / f"figures/{name}.svg").getroot().tag.endswith("svg")
        assert (copy / f"figures/{name}.png").read_bytes() == b"PNG"


def test_every_mark_and_word_of_a_figure_lies_inside_it(run: Path) -> None:
    for figure in figures(read_run(run)):
        width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure.svg)[0])
        for x, y in re.findall(r'<(?:text|circle)[^>]*?c?x="([-\d.]+)" c?y="([-\d.]+)"', figure.svg):
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height


def test_pointing_at_a_candidate_shows_its_genotype(run: Path) -> None:
    [front] = [figure for figure in figures(read_run(run)) if figure.name == "pareto_front"]
    for row in read(run / "study/candidates.json"):
        operator = row["genotype"]["normal"][0][0]["operator"]
        assert re.search(rf"<title>{row['key']} [^<]*normal 2: [^<]*{operator}", front.svg)


def test_what_others_wrote_into_a_run_is_escaped(copy: Path) -> None:
    write(copy / "warnings.json", ["<script>alert(1)</script>"])
    content = read(copy / "comparison.json")
    content["rows"][1]["label"] = "<b>hand & foot</b>"
    write(copy / "comparison.json", content)
    page = write_report(copy).read_text()
    assert "<script>" not in page
    assert "<b>hand" not in page
    assert "&lt;b&gt;hand &amp; foot&lt;/b&gt;" in page


def test_no_temporary_file_is_left(copy: Path) -> None:
    write_report(copy)
    assert not list(copy.rglob(".*"))


def test_a_failed_report_leaves_the_old_one(copy: Path) -> None:
    before = write_report(copy).read_bytes()
    write(copy / "ranking.json", "{")
    with pytest.raises(RunError):
        write_report(copy)
    assert (copy / "report.html").read_bytes() == before


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("content", ['{"n": ', '[{"no": 1}]', '"text"', "\x00"])
def test_a_corrupt_file_is_one_line_that_names_it(copy: Path, file: str, content: str) -> None:
    write(copy / file, content)
    with pytest.raises(RunError) as error:
        if file == "study/front.json" and content == '"text"':
            write(copy / file, "7")
        read_run(copy)
    assert str(error.value).startswith(str(copy / file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["config.yaml", "environment.json"])
def test_a_folder_without_its_first_files_is_no_run(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(RunError, match=f"is not a run folder: {file} is missing"):
        read_run(copy)


def test_a_wrong_value_is_named_by_its_place(copy: Path) -> None:
    content = read(copy / "comparison.json")
    content["rows"][2]["flops"] = "many"
    write(copy / "comparison.json", content)
    with pytest.raises(RunError, match=r"comparison.json: rows\.2\.flops: "):
        read_run(copy)


def test_values_that_are_not_finite_do_not_stop_a_report(copy: Path) -> None:
    history = read(copy / "supernet/history.json")
    history[3]["loss"] = float("nan")
    write(copy / "supernet/history.json", history)
    [drawn] = [figure for figure in figures(read_run(copy)) if figure.name == "supernet_training"]
    assert "nan" not in drawn.svg


def test_rates_are_read_in_rising_order(run: Path) -> None:
    comparison = read_run(run).comparison
    assert comparison
    for row in comparison.rows:
        assert [score.rate for score in row.rates] == sorted(score.rate for score in row.rates)


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [((0.5, 0.6), "beats"), ((0.5, 0.7), "level"), ((0.75, 0.9), "level"), ((0.85, 0.9), "behind")],
)
def test_a_win_needs_intervals_that_do_not_overlap(theirs: tuple[float, float], expected: str) -> None:
    assert outcome(rate_score(0.7, 0.8), rate_score(*theirs)) == expected


def test_what_was_not_measured_is_neither_won_nor_lost() -> None:
    assert outcome(rate_score(0.7, 0.8), None) == "unknown"


def test_the_headline_says_only_what_the_rule_allows(copy: Path) -> None:
    content = read(copy / "comparison.json")
    for row in content["rows"]:
        if row["family"] == "hand":
            row["rates"] = content["rows"][0]["rates"]
        if row["name"] == "resnet20-scaled-ftt":
            row["rates"] = [{**score, "low": 0.98, "mean": 0.99, "high": 1.0} for score in row["rates"]]
    write(copy / "comparison.json", content)
    comparison = read_run(copy).comparison
    assert comparison
    sentence = headline(comparison)
    assert "is level with the hand-made separable cell" in sentence
    assert "is beaten by resnet20 x 0.281" in sentence
    assert "beats the mean of 6 random cells, mobilenet_v2 x 0.375 and vgg16 x 0.0469" in sentence
    assert "level with 1" in tally(comparison)


def test_random_cells_are_judged_by_their_mean(run: Path) -> None:
    comparison = read_run(run).comparison
    assert comparison
    names = [verdict.other.name for verdict in verdicts(comparison)]
    assert names.count("random-mean") == 1
    assert not any(name.startswith("matched") for name in names)


def test_the_mean_net_has_its_interval_over_nets(run: Path) -> None:
    comparison = read_run(run).comparison
    assert comparison
    cells = comparison.family("random")
    mean = mean_of(cells, "mean")
    assert mean
    score = mean.at(RATE)
    assert score
    assert score.chips == tuple(cell.at(RATE).mean for cell in cells)  # type: ignore[union-attr]
    assert score.low < score.mean < score.high


def test_csv_holds_every_score_with_every_digit(run: Path) -> None:
    rows = read(run / "comparison.json")["rows"]
    lines = list(csv.DictReader(io.StringIO(comparison_csv(rows))))
    found = {(line["name"], float(line["rate"])): float(line["mean"]) for line in lines}
    assert found == {(row["name"], score["rate"]): score["mean"] for row in rows for score in row["rates"]}


def test_markdown_has_as_many_cells_in_each_line(run: Path) -> None:
    rows = read(run / "comparison.json")["rows"]
    for rate in (None, RATE):
        lines = comparison_markdown(rows, rate=rate).splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert len(lines) == 2 + len(rows) + 1  # the mean of the random cells


def test_markdown_calls_wins_only_at_a_rate(run: Path) -> None:
    rows = read(run / "comparison.json")["rows"]
    assert "better" in comparison_markdown(rows, rate=RATE)
    assert "better" not in comparison_markdown(rows)


@pytest.mark.parametrize(
    ("value", "text"),
    [(3e-4, "3×10⁻⁴"), (1e-5, "10⁻⁵"), (1e-3, "0.001"), (0.08, "0.08"), (0, "0")],  # noqa: RUF001
)
def test_rates_read_well(value: float, text: str) -> None:
    assert wording.rate(value) == text


@pytest.mark.parametrize(("flops", "text"), [(700_000, "0.700"), (1.114e9, "1,114"), (99.94e6, "99.9")])
def test_megaflops_read_well(flops: float, text: str) -> None:
    assert wording.megaflops(flops) == text


@pytest.mark.parametrize(("low", "high"), [(0, 1), (93.1, 98.7), (-3, 1e6), (0.2, 0.21)])
def test_linear_ticks_are_inside_and_few(low: float, high: float) -> None:
    ticks = linear_ticks(low, high)
    assert 2 <= len(ticks) <= 11
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)


@pytest.mark.parametrize(("low", "high"), [(0.2, 1.1), (1, 1000), (0.9, 1.1), (1e-6, 1e3)])
def test_log_ticks_are_inside_and_few(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 11
    assert all(low <= tick <= high for tick in ticks)


def test_a_scale_maps_its_ends_to_its_ends() -> None:
    scale = Scale(0.1, 10, 50, 250, log=True)
    assert [round(scale(value), 6) for value in (0.1, 1, 10)] == [50, 150, 250]


def test_labels_at_line_ends_never_share_a_line() -> None:
    parts = at_ends([Label((0, 100), f"n{i}", "red") for i in range(8)], 10, top=0, bottom=200)
    heights = sorted(float(y) for part in parts for y in re.findall(r'<text x="10" y="([\d.]+)"', part))
    assert len(heights) == 8
    assert all(b - a > 15 for a, b in pairwise(heights))


def test_labels_of_marks_at_one_place_do_not_cover_each_other() -> None:
    parts = beside([Label((100, 100), "label", "red") for _ in range(6)], (0, 0, 300, 200))
    places = {tuple(re.findall(r'<text x="([\d.]+)" y="([\d.]+)"', part)) for part in parts if "<text" in part}
    assert len(places) == 6


@pytest.mark.parametrize("rows", [1, 2])
def test_a_study_of_very_few_candidates_is_drawn(tmp_path: Path, rows: int) -> None:
    run = fake_run(tmp_path / "r", until="study")
    kept = read(run / "study/candidates.json")[:rows]
    write(run / "study/candidates.json", kept)
    write(run / "study/leaders.json", [])
    write(run / "study/front.json", [kept[0]["key"]])
    assert "pareto_front" in write_report(run).read_text()


def test_a_comparison_of_the_winner_alone_is_drawn(copy: Path) -> None:
    content = read(copy / "comparison.json")
    content["rows"] = [{**content["rows"][0], "rates": content["rows"][0]["rates"][:1]}]
    write(copy / "comparison.json", content)
    assert FAULT in write_report(copy).read_text()


def test_a_rate_of_zero_is_no_place_on_a_logarithmic_scale(copy: Path) -> None:
    content = read(copy / "comparison.json")
    for row in content["rows"]:
        row["rates"].append({"rate": 0.0, "mean": 0.9, "low": 0.89, "high": 0.91, "chips": [0.9, 0.9]})
    write(copy / "comparison.json", content)
    write_report(copy)


def test_front_rows_may_be_whole_rows(copy: Path) -> None:
    keys = read(copy / "study/front.json")
    write(copy / "study/front.json", [{"key": key, "flops": 1} for key in keys])
    assert read_run(copy).front == tuple(keys)


def test_the_fake_run_has_every_file_of_the_contract(run: Path) -> None:
    assert read_run(run).missing == ()
    assert json.loads((run / "study/front.json").read_text())


def test_axes_hold_what_is_far_apart_and_leave_out_what_cannot_be_drawn() -> None:
    assert spread_ratio([5e-324, 1.0])[0] > 0
    low, high = spread_ratio([1e-300, 1e300], margin=0.01)
    assert 0 < low < 1e-300 and 1e300 < high < math.inf
    assert spread([1e308, -1e308, 2.0, math.nan]) == spread([2.0])


def test_work_of_no_operations_is_one_line(copy: Path) -> None:
    comparison = read(copy / "comparison.json")
    comparison["rows"][0]["flops"] = 0
    write(copy / "comparison.json", comparison)
    with pytest.raises(RunError, match=r"comparison.json: rows.0.flops: .*greater than 0"):
        read_run(copy)
