"""Plans as tables: whoever reads the table, and nothing else of ours, builds the same faulty chip."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from faulty_net import EVERY_FAULT, VARIANTS, Net, Probe, some_images, trained_net
from slow_faults import Row, slow
from torch import Tensor

from ftnas.faults import (
    Fault,
    Flip,
    Gaussian,
    LogNormal,
    Plan,
    draw_plan,
    explicit_plan,
    export_csv,
    inject,
    output_shapes,
)

TABLE = ["tensor", "image", "index", "bit", "kind"]
VARIATION = (LogNormal, Gaussian)
WEIGHTS = [fault for fault in EVERY_FAULT + VARIANTS if fault.target == "weights"]
FEATURES = [fault for fault in EVERY_FAULT + VARIANTS if fault.target == "features"]


@pytest.fixture(scope="module")
def net() -> Net:
    return trained_net()


def table(plan: Plan, folder: Path) -> list[list[str]]:
    export_csv(plan, folder / "plan.csv")
    with (folder / "plan.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == TABLE
    return rows


def by_value(rows: list[list[str]], tensor: str, values: int) -> dict[int, list[Row]]:
    """Return what happens to each value of a tensor, or of its images one after another."""
    found: dict[int, list[Row]] = {}
    for name, image, index, bit, kind in rows:
        if name == tensor:
            found.setdefault(int(image or 0) * values + int(index), []).append((int(bit or -1), kind))
    return found


def normals(rows: dict[int, list[Row]], values: int) -> np.ndarray:
    """Return the normal of each value, as the table writes it."""
    assert sorted(rows) == list(range(values))
    assert all(len(found) == 1 and found[0][1].startswith("vary:") for found in rows.values())
    return np.array([float(rows[element][0][1].partition(":")[2]) for element in range(values)])


def faulty_weight(net: Net, fault: Fault) -> tuple[Tensor, Tensor, float]:
    """Return the weight on its grid, the faulty one, and its step."""
    number = net.body.weight_number(net.body.weight)
    weight = number.decode(number.encode(net.body.weight.detach()))
    with inject(net, fault) as injection:
        return weight, injection.weight(net.body, weight, number), number.scale  # type: ignore[union-attr, return-value]


@pytest.mark.parametrize("fault", WEIGHTS, ids=str)
def test_the_table_says_all_that_happens_to_a_weight(fault: Fault, net: Net, tmp_path: Path) -> None:
    rows = by_value(table(draw_plan(net, fault), tmp_path), "body.weight", 288)
    number = net.body.weight_number(net.body.weight)
    weight, faulty, scale = faulty_weight(net, fault)
    if isinstance(fault, VARIATION):
        change, clean = fault.sigma * normals(rows, 288).reshape(weight.shape), weight.numpy()
        exact = clean * np.exp(change) if isinstance(fault, LogNormal) else clean + np.abs(clean).max() * change
        assert np.allclose(faulty, exact, rtol=1e-6, atol=1e-7)
        return
    codes = number.encode(weight).flatten().tolist()
    assert (faulty / scale).flatten().tolist() == slow(codes, fault, rows, number) != codes


@pytest.mark.parametrize("fault", FEATURES, ids=str)
def test_the_table_says_all_that_happens_to_outputs(fault: Fault, tmp_path: Path) -> None:
    probe = Probe((4, 4, 4))
    plan = draw_plan(probe.model, fault, images=range(80), shapes={"0.output": (4, 4, 4)}, chip=7)
    rows = by_value(table(plan, tmp_path), "0.output", 64)
    number, values = probe.number, probe.features[:80].clone()
    codes = number.encode(values).flatten().tolist()
    with inject(probe.model, plan) as injection:
        injection.output(probe.model[0], values, number)
    result = number.encode(values).flatten().tolist()
    if isinstance(fault, Gaussian):
        exact = np.array(codes) + fault.sigma * 128 * normals(rows, 80 * 64)
        assert np.abs(np.array(result) - exact.clip(-128, 127)).max() < 0.5001
        return
    assert result == slow(codes, fault, rows, number) != codes


def test_listed_faults_come_back_from_the_table_as_they_were(net: Net, tmp_path: Path) -> None:
    flips = [
        Flip("stem.weight", 5, 0),
        Flip("stem.weight", 215, 7, "stuck_at_1"),
        Flip("body.weight", 0, 3, "stuck_at_0"),
        Flip("head.output", 9, 2, image=3),
        Flip("stem.output", 511, 6, "stuck_at_1", image=149),
    ]
    images = some_images()
    plan = explicit_plan(net, flips, shapes=output_shapes(net, images[:1]), images=len(images))
    read = [
        Flip(tensor, int(index), int(bit), kind, int(image or 0))  # type: ignore[arg-type]
        for tensor, image, index, bit, kind in table(plan, tmp_path)
    ]
    assert sorted(read, key=str) == sorted(flips, key=str)


def test_the_table_names_an_image_for_outputs_only(net: Net, tmp_path: Path) -> None:
    plan = explicit_plan(
        net, [Flip("stem.weight", 5, 0), Flip("head.output", 9, 2)], shapes={"head.output": (10,)}, images=1
    )
    assert table(plan, tmp_path) == [["stem.weight", "", "5", "0", "flip"], ["head.output", "0", "9", "2", "flip"]]


def test_a_random_value_is_written_as_the_bits_it_becomes(net: Net, tmp_path: Path) -> None:
    rows = table(draw_plan(net, "weights.random_value:0.1"), tmp_path)
    assert {row[3] for row in rows} == {""}
    assert all(0 <= int(row[4].removeprefix("replace:"), 16) < 256 for row in rows)


def test_a_plan_without_faults_is_a_table_without_rows(net: Net, tmp_path: Path) -> None:
    assert table(draw_plan(net, []), tmp_path) == []


def test_the_same_plan_writes_the_same_bytes(net: Net, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export_csv(draw_plan(net, "weights.stuck_cell:0.1", chip=3), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert b"\r" not in (tmp_path / "one").read_bytes()
