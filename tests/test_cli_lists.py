"""``ftnas spaces``, ``primitives``, ``faults`` and ``baselines``: each lists all there is, truly, and in a line."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from command_line import ftnas
from hypothesis import given
from hypothesis import strategies as st

from ftnas.cli import catalogue
from ftnas.cli.listings import Growth, _cost
from ftnas.cost import operator_work
from ftnas.data import DATA_SETS
from ftnas.faults import FAULTS, parse_fault
from ftnas.networks import BASELINES
from ftnas.pipeline.spiking_exports import ALL_FORMATS
from ftnas.space import OPERATORS, bundled_spaces, load_space

TABLES = {
    "spaces": tuple(bundled_spaces()),
    "primitives": OPERATORS,
    "faults": tuple(FAULTS),
    "baselines": tuple(BASELINES),
}


@cache
def listed(command: str) -> list[dict[str, Any]]:
    result = ftnas(command, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


@pytest.mark.parametrize("command", TABLES)
def test_a_list_has_everything_there_is_in_its_order_a_line_each(command: str) -> None:
    result = ftnas(command)
    assert result.exit_code == 0, (result.output, result.exception)
    _, *lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(TABLES[command])
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize("command", TABLES)
def test_a_list_as_json_has_the_same_names(command: str) -> None:
    assert [row["name"] for row in listed(command)] == list(TABLES[command])


@pytest.mark.parametrize(
    ("words", "table"),
    [
        (catalogue.FAULTS, FAULTS),
        (catalogue.OPERATORS, OPERATORS),
        (catalogue.BASELINES, BASELINES),
        (catalogue.DATA_SETS, DATA_SETS),
        (catalogue.FORMATS, ALL_FORMATS),
        (catalogue.space_names(), bundled_spaces()),
    ],
    ids=["faults", "operators", "baselines", "data sets", "formats", "spaces"],
)
def test_what_is_described_in_words_is_what_the_tables_hold(words: Any, table: Any) -> None:
    assert sorted(words) == sorted(table)


@pytest.mark.parametrize("row", list(catalogue.FAULTS.items()), ids=lambda row: row[0])
def test_a_fault_says_what_fails_in_which_hardware_and_who_described_it(row: tuple[str, Any]) -> None:
    name, words = row
    assert parse_fault(f"{name}:0.1").name == name
    assert all(len(text) > 5 for text in (words.what, words.hardware, words.source))
    assert any(sign.isdigit() for sign in words.source)


def test_a_space_is_listed_with_its_size() -> None:
    row = next(row for row in listed("spaces") if row["name"] == "tiny")
    tiny = load_space("tiny")
    assert (row["architectures"], row["operators"]) == (tiny.size, list(tiny.operators))


@given(st.sampled_from(OPERATORS), st.sampled_from([1, 2]), st.integers(1, 50).map(lambda half: 2 * half))
def test_the_cost_of_a_primitive_holds_for_any_even_number_of_channels(name: str, stride: int, channels: int) -> None:
    work = operator_work(name, channels, (stride, stride), stride)
    at = [growth.squared * channels**2 + growth.linear * channels for growth in _cost(name, stride=stride)]
    assert at == [work.macs, work.parameters]


@pytest.mark.parametrize(
    ("growth", "words"),
    [((0, 0), "0"), ((1, 0), "C²"), ((1, 9), "C² + 9C"), ((2, 18), "2C² + 18C"), ((0, 1), "C")],
)
def test_a_growth_is_written_as_in_a_formula(growth: tuple[int, int], words: str) -> None:
    assert str(Growth(*growth)) == words


@pytest.mark.parametrize(
    ("name", "flops", "parameters"), [("resnet20", 81_102_080, 269_722), ("vgg16", 626_403_328, 14_728_202)]
)
def test_a_baseline_is_listed_with_its_published_cost(name: str, flops: int, parameters: int) -> None:
    row = next(row for row in listed("baselines") if row["name"] == name)
    assert (row["flops"], row["parameters"], row["image"]) == (flops, parameters, [3, 32, 32])
