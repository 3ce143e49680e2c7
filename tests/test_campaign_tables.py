"""Tables, documents, weights and figures of a campaign: what people read says what was measured."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest
import torch
from campaign_support import IMAGES, calibrated, data, fingerprint
from torch import nn

from ftnas.campaign import (
    DENOMINATORS,
    MEANINGS,
    document,
    faulty_state_dict,
    layer_bit_rows,
    layer_rows,
    rows,
    run,
    run_single,
    to_csv,
)
from ftnas.errors import CampaignError
from ftnas.faults import inject
from ftnas.quantization import QuantizedLayer, tapped
from ftnas.report.campaign_figures import accuracy_figure, heat_map

FLIPS = "weights.bitflip:1e-3,1e-2"


def test_the_row_of_a_rate_has_every_share_with_its_interval() -> None:
    result = run(calibrated(), data(), FLIPS, chips=4)
    table = rows(result)
    assert [row["rate"] for row in table] == [1e-3, 1e-2]
    for row, rate in zip(table, result.rates, strict=True):
        rights = [unit["rates"][table.index(row)]["images"]["correct_after"] / IMAGES for unit in result.units]
        assert row["accuracy"] == pytest.approx(sum(rights) / 4)
        assert (row["accuracy_lowest"], row["accuracy_highest"]) == (min(rights), max(rights))
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert row["masked"] + row["benign"] + row["sdc1"] + row["due"] == pytest.approx(1)
        assert row["accuracy"] + row["accuracy_drop"] == pytest.approx(result.accuracy)
        assert row["faults_applied"] == rate.counts["applied"]
        assert (row["chips"], row["confidence"]) == (4, 0.95)


def test_the_last_row_of_single_faults_is_the_network() -> None:
    result = run_single(calibrated(), data(), n=60, by="layer")
    table = rows(result)
    assert [row["stratum"] for row in table] == ["first.weight", "second.weight", "classifier.weight", "network"]
    assert sum(row["injected"] for row in table[:-1]) == table[-1]["injected"] == 60
    weighted = sum(row["size"] * row["changed"] for row in table[:-1]) / table[-1]["size"]
    assert table[-1]["changed"] == pytest.approx(weighted)
    assert [row["stratum"] for row in rows(run_single(calibrated(), data(), n=20))] == ["network"]


@pytest.mark.parametrize("single", [True, False])
def test_a_document_is_json_that_says_population_seed_versions_and_denominators(single: bool) -> None:
    result: Any = (
        run_single(calibrated(), data(), n=20, study="s")
        if single
        else run(calibrated(), data(), FLIPS, chips=2, study="s")
    )
    read = json.loads(json.dumps(document(result), allow_nan=False))
    assert read["settings"]["study"] == "s"
    assert read["settings"]["versions"]["torch"] == torch.__version__
    assert len(read["settings"]["model"]["hash"]) == len(read["settings"]["data"]["hash"]) == 32
    assert read["denominators"] == dict(DENOMINATORS)
    assert read["meanings"] == dict(MEANINGS)
    assert read["unit"] == ("fault" if single else "chip")
    assert "of 3 sites" in read["population"] or "at 3 sites" in read["population"]
    assert read["rows"] == json.loads(json.dumps(rows(result)))


def test_csv_has_a_line_a_row_and_an_empty_cell_for_what_is_not_there() -> None:
    result = run_single(calibrated(), data(), n=20)
    read = list(csv.DictReader(io.StringIO(to_csv(layer_bit_rows(result)))))
    assert len(read) == 24
    assert {row["mean"] == "" for row in read} == {True, False}
    assert [float(row["mean"]) for row in read if row["mean"]] == [
        row["mean"] for row in layer_bit_rows(result) if row["mean"] is not None
    ]


# Faulty weights


@pytest.mark.parametrize("fault", ["weights.bit_flip:0.02", "weights.stuck_cell:0.1"])
def test_the_faulty_state_holds_the_weights_that_a_chip_computes_with(fault: str) -> None:
    model = calibrated()
    before = fingerprint(model)
    state = faulty_state_dict(model, fault, 5, study="s")
    assert fingerprint(model) == before
    assert state.keys() == model.state_dict().keys()

    class Replaced:
        def weight(self, layer: nn.Module, weight: torch.Tensor, number: object) -> torch.Tensor:
            return state[f"{names[layer]}.weight"]

        def output(self, layer: nn.Module, features: torch.Tensor, number: object) -> None: ...

    names = {layer: name for name, layer in model.named_modules() if isinstance(layer, QuantizedLayer)}
    with torch.no_grad():
        with tapped(Replaced()):
            replaced = model(data()[0])
        with inject(model, fault, chip=5, study="s"):
            injected = model(data()[0])
        assert torch.equal(replaced, injected)
        assert not torch.equal(injected, model(data()[0]))
    untouched = [name for name in state if not (name.endswith(".weight") and "norm" not in name)]
    assert all(torch.equal(state[name], model.state_dict()[name]) for name in untouched)


def test_the_faulty_state_is_of_one_rate() -> None:
    with pytest.raises(CampaignError, match="2 rates; allowed is one"):
        faulty_state_dict(calibrated(), FLIPS)
    one, other = (
        faulty_state_dict(calibrated(), "weights.bit_flip:1e-3", rate=0.02),
        faulty_state_dict(calibrated(), "weights.bit_flip:0.02"),
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


# Figures


def titles(drawing: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(drawing).iter("{http://www.w3.org/2000/svg}title")]


def words(drawing: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")]


def test_the_accuracy_figure_marks_every_rate_and_the_net_without_faults() -> None:
    result = run(calibrated(), data(), "weights.bit_flip:0,1e-3,1e-2", chips=4)
    drawing = accuracy_figure(rows(result), clean=result.accuracy, title="a < b & c")
    assert "a < b & c" in words(drawing)
    marks = titles(drawing)
    assert marks[0] == f"no faults: {100 * result.accuracy:.1f} %"
    assert len(marks) == 3  # a rate of 0 has no place on a logarithmic axis
    assert [mark.split(":")[0] for mark in marks[1:]] == ["rate 0.001", "rate 0.01"]
    assert f"{100 * result.rates[2].accuracy.mean:.1f} %" in marks[2]


@pytest.mark.parametrize("fault", ["weights.bit_flip:1e-3", "weights.bit_flip:0"])
def test_a_figure_of_one_rate_or_none_can_be_drawn(fault: str) -> None:
    result = run(calibrated(), data(), fault, chips=2)
    assert titles(accuracy_figure(rows(result), clean=result.accuracy, title="one"))


def test_the_heat_map_has_a_cell_for_every_bit_of_every_layer_and_one_for_all() -> None:
    result = run_single(calibrated(), data(), n=80, by="layer")
    cells, layers = layer_bit_rows(result), layer_rows(result)
    marks = titles(heat_map(cells, layers, title="bits"))
    assert len(marks) == 3 * 8 + 3
    missing = [f"{row['site']}, bit {row['bit']}: no estimate" for row in cells if row["mean"] is None]
    assert missing
    assert set(missing) <= set(marks)
    assert any(mark.startswith(f"first.weight: {100 * layers[0]['mean']:.3g} %") for mark in marks)


def test_a_heat_map_without_any_effect_can_be_drawn() -> None:
    cells = [
        {"site": "a", "bit": bit, "size": 8, "injected": 1, "mean": 0.0, "low": 0.0, "high": 0.9} for bit in (0, 1)
    ]
    layers = [{"site": "a", "bits": 2, "size": 16, "injected": 2, "mean": 0.0, "low": 0.0, "high": 0.8}]
    assert len(titles(heat_map(cells, layers, title="none"))) == 3
