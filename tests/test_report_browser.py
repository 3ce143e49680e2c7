"""Reports in a real browser: nothing to complain of, every figure drawn, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, chromium
from fake_run import fake_run

from ftnas.report.page import write_report, write_reports
from ftnas.report.record import read_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

UNDRAWN = """
[...document.querySelectorAll('svg')].filter(drawing => {
  const box = drawing.getBoundingClientRect(), marks = drawing.querySelectorAll('line,polyline,polygon,circle,path');
  return !(box.width > 100 && box.height > 50 && marks.length > 2);
}).map(drawing => drawing.getAttribute('aria-label') || drawing.textContent.slice(0, 40))
"""
# Words of a drawing that reach out of it, by more than a font may be wider than we reckon with.
CUT_OFF = """
[...document.querySelectorAll('figure svg text')].filter(words => {
  const frame = words.ownerSVGElement.getBoundingClientRect(), box = words.getBoundingClientRect();
  return box.left < frame.left - 2 || box.right > frame.right + 2
    || box.top < frame.top - 2 || box.bottom > frame.bottom + 2;
}).map(words => words.textContent)
"""
CONTRAST = """
(() => {
  const light = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number)
    .map(part => part / 255).map(part => part <= 0.04 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const {color, backgroundColor} = getComputedStyle(document.body), ink = light(color), paper = light(backgroundColor);
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the report of one run, of one that has only begun, and of both side by side."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ftnas.report.figures.write_png", lambda drawing, path: None)
        runs = [fake_run(folder / "whole"), fake_run(folder / "begun", until="start")]
        several = write_reports(runs, folder / "all.html")
        return {"whole": write_report(runs[0]), "begun": write_report(runs[1]), "several": several}


@pytest.mark.parametrize("name", ["whole", "begun", "several"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_has_nothing_to_complain_of(
    browser: Page, pages: dict[str, Path], name: str, scheme: str, width: int
) -> None:
    browser.open(pages[name], width=width, scheme=scheme)
    assert browser.complaints() == []
    assert [address for address in browser.fetched() if not address.startswith("data:")] == [pages[name].as_uri()]
    assert browser.value(UNDRAWN) == []
    assert browser.value(CUT_OFF) == []
    assert browser.value("document.documentElement.scrollWidth") == width  # only tables and figures scroll sideways
    assert browser.value(CONTRAST) > 7


def test_every_figure_of_the_run_is_on_the_page(browser: Page, pages: dict[str, Path]) -> None:
    browser.open(pages["whole"])
    assert browser.value("document.querySelectorAll('figure svg').length") == 10
    assert browser.value("document.querySelectorAll('.cells svg').length") == 2


def test_the_two_colour_schemes_differ(browser: Page, pages: dict[str, Path]) -> None:
    papers = []
    for scheme in ("light", "dark"):
        browser.open(pages["whole"], scheme=scheme)
        papers.append(browser.value("getComputedStyle(document.body).backgroundColor"))
    assert papers[0] != papers[1]


def test_pointing_at_a_dot_of_the_front_shows_its_genotype(browser: Page, pages: dict[str, Path]) -> None:
    browser.open(pages["whole"])
    row = read_run(pages["whole"].parent).front_rows[-1]
    browser.value(f"""
      dot = [...document.querySelectorAll('#figure-pareto_front .point')]
        .find(group => group.textContent.startsWith('{row.key}') && group.querySelector('[fill="#2f7fd0"]'));
      dot.scrollIntoView({{block: 'center', behavior: 'instant'}})""")
    place = browser.value("(({x, y, width, height}) => [x + width / 2, y + height / 2])(dot.getBoundingClientRect())")
    browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    words = browser.value("document.querySelector('.point:hover > title').textContent")
    assert row.key in words
    assert "normal 2: " in words and "reduction 4: " in words


def test_the_browser_would_see_an_error_and_a_fetch(browser: Page, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("wrong")</script>')
    browser.open(tmp_path / "bad.html")
    assert any("wrong" in line for line in browser.complaints())
    assert "http://127.0.0.1:9/x.png" in browser.fetched()
