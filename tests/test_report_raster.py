"""Our own drawings as PNG: pixels where the SVG says, and every figure of a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_run import fake_run
from numpy.typing import NDArray
from PIL import Image

from ftnas.report import svg
from ftnas.report.drawing import genotype_svg
from ftnas.report.page import write_report
from ftnas.report.raster import SCALE, write_png
from ftnas.report.record import read_run

RED, BLUE = "#ff0000", "#0000ff"


def pixels(drawing: str, folder: Path) -> NDArray[np.uint8]:
    """Return the picture of ``drawing`` as [height, width, 3]."""
    write_png(drawing, folder / "picture.png")
    with Image.open(folder / "picture.png") as picture:
        return np.asarray(picture.convert("RGB"))


def drawn(*parts: str, folder: Path) -> NDArray[np.uint8]:
    return pixels(svg.document(100, 60, "test", parts), folder)


def at(picture: NDArray[np.uint8], x: float, y: float) -> tuple[int, ...]:
    """Return the colour at ``(x, y)``, in units of the drawing."""
    return tuple(int(part) for part in picture[round(y * SCALE), round(x * SCALE)])


def ink(picture: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of all that is not white, in units of the drawing."""
    rows, columns = np.nonzero((picture < 200).any(axis=2))
    return columns.min() / SCALE, rows.min() / SCALE, columns.max() / SCALE, rows.max() / SCALE


def test_a_picture_has_two_pixels_a_unit_on_white(tmp_path: Path) -> None:
    picture = drawn(folder=tmp_path)
    assert picture.shape == (120, 200, 3)
    assert (picture == 255).all()


def test_a_circle_is_where_the_drawing_says(tmp_path: Path) -> None:
    picture = drawn(svg.circle((70, 15), 6, colour=RED), folder=tmp_path)
    assert at(picture, 70, 15) == (255, 0, 0)
    assert ink(picture) == pytest.approx((64, 9, 76, 21), abs=0.6)


def test_a_line_is_as_wide_as_the_drawing_says(tmp_path: Path) -> None:
    picture = drawn(svg.line((10, 30), (90, 30), colour=RED, width=4), folder=tmp_path)
    assert ink(picture) == pytest.approx((10, 28, 90, 32), abs=0.6)


def test_a_dashed_line_has_gaps_of_its_own_length(tmp_path: Path) -> None:
    picture = drawn(svg.line((10, 30), (90, 30), colour=RED, width=4, dash="10 10"), folder=tmp_path)
    assert [at(picture, x, 30) == (255, 0, 0) for x in (15, 25, 35, 45)] == [True, False, True, False]


def test_groups_move_what_is_inside_them(tmp_path: Path) -> None:
    picture = drawn(f'<g transform="translate(40 20)">{svg.circle((0, 0), 4, colour=BLUE)}</g>', folder=tmp_path)
    assert at(picture, 40, 20) == (0, 0, 255)


def test_what_is_faded_lets_the_paper_through(tmp_path: Path) -> None:
    square = svg.polygon([(0, 0), (50, 0), (50, 50), (0, 50)], colour=RED, opacity=0.4)
    assert at(drawn(square, folder=tmp_path), 25, 25) == (255, 153, 153)


@pytest.mark.parametrize(("anchor", "left", "right"), [("start", 50, 74), ("end", 26, 50), ("middle", 38, 62)])
def test_words_begin_or_end_where_they_are_anchored(tmp_path: Path, anchor: str, left: float, right: float) -> None:
    found = ink(drawn(svg.text((50, 40), "HHH", anchor=anchor, colour="#000000"), folder=tmp_path))
    assert (found[0], found[2]) == pytest.approx((left, right), abs=5)
    assert found[3] == pytest.approx(40, abs=1)


def test_a_dollar_sign_is_no_formula(tmp_path: Path) -> None:
    assert ink(drawn(svg.text((5, 40), "$x_1$ $", colour="#000000"), folder=tmp_path))


def test_an_element_that_we_never_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="<ellipse> cannot be drawn"):
        drawn('<ellipse rx="3" ry="4"/>', folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_cells_fill_their_picture(tmp_path: Path) -> None:
    genotype = read_run(fake_run(tmp_path / "run")).winner_genotype
    assert genotype
    picture = pixels(genotype_svg(genotype, title="cells"), tmp_path)
    height, width = (side / SCALE for side in picture.shape[:2])
    left, top, right, bottom = ink(picture)
    assert left < 30 and top < 45 and right > width - 60 and bottom > height - 60


def test_every_figure_of_a_report_is_a_picture_of_its_size(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    write_report(run)
    files = sorted((run / "figures").glob("*.svg"))
    assert len(files) == 11
    for file in files:
        with Image.open(file.with_suffix(".png")) as picture:
            assert f'width="{picture.width / SCALE:g}"' in file.read_text(), file.name
            assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 20, file.name
