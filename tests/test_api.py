"""The verbs of the command line as Python functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from quick_runs import QUICK, quick
from small_nets import digits, small_net
from typer.main import get_group

from ftnas import api
from ftnas.campaign import ChipResult, SingleResult
from ftnas.cli.main import app
from ftnas.data import Dataset
from ftnas.errors import CampaignError, ConfigError
from ftnas.pipeline.campaigns import ChipOptions, SingleOptions
from ftnas.pipeline.config import RunConfig
from ftnas.quantization import assume_ranges

VERBS = ("search", "train", "campaign", "compare", "export")
FAULTS = ["weights.bit_flip:1e-2,1e-3"]


@pytest.fixture
def net() -> api.Checkpoint:
    """Return an untrained net and a hundred images."""
    whole = digits()
    images, labels = whole.train_images[:100], whole.train_labels[:100]
    model = small_net()
    model(images)  # measures the ranges
    assume_ranges(model)
    data = Dataset("digits", images, labels, whole.test_images[:100], whole.test_labels[:100], whole.classes)
    return api.Checkpoint("small", model.eval(), data)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_a_command_and_a_function(verb: str) -> None:
    assert verb in get_group(app).commands
    assert callable(getattr(api, verb)) and verb in api.__all__


def test_a_campaign_over_chips_is_the_same_from_keys_and_from_options(net: api.Checkpoint, tmp_path: Path) -> None:
    keys = api.campaign(net, {"faults": FAULTS, "chips": 3}, tmp_path / "keys")
    options = api.campaign(net, ChipOptions(tuple(FAULTS), chips=3), str(tmp_path / "options"), workers=2)
    assert isinstance(keys, ChipResult) and isinstance(options, ChipResult)
    assert keys.units == options.units
    assert [rate.rate for rate in keys.rates] == [1e-2, 1e-3]
    for name in ("results.json", "results.csv", "accuracy.svg", "records.jsonl"):
        assert (tmp_path / "keys" / name).read_bytes() == (tmp_path / "options" / name).read_bytes()


def test_options_without_faults_are_of_single_faults(net: api.Checkpoint, tmp_path: Path) -> None:
    found = api.campaign(net, {"n": 30, "sites": "first.weight"}, tmp_path / "keys")
    assert isinstance(found, SingleResult) and len(found.units) == 30
    again = api.campaign(net, SingleOptions(n=30, sites="first.weight"), tmp_path / "options")
    assert isinstance(again, SingleResult) and again.units == found.units


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"faults": FAULTS, "chip": 3}, ["chip", "unknown key", "chips", "margin"]),
        ({"faults": FAULTS, "by": "layer"}, ["by", "unknown key", "export_chip"]),
        ({"chips": 3}, ["chips", "unknown key", "exhaustive"]),
        ({"faults": FAULTS}, ["margin", "chips", "exactly one"]),
    ],
)
def test_options_of_no_campaign_are_refused(
    options: dict[str, Any], words: list[str], net: api.Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(CampaignError) as caught:
        api.campaign(net, options, tmp_path / "out")
    assert [word for word in words if word not in str(caught.value)] == []
    assert not (tmp_path / "out").exists()


def test_an_export_is_of_the_net_that_was_given(
    net: api.Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr("ftnas.pipeline.exports.export", lambda *values, **more: given.append((values, more)))
    api.export(net, ["onnx", "c"], str(tmp_path / "dist"), faults=["weights.bit_flip:1e-3"], chip=3)
    [(values, more)] = given
    assert values == (net, ["onnx", "c"], tmp_path / "dist")
    assert more == {"faults": ["weights.bit_flip:1e-3"], "chip": 3}


@pytest.mark.parametrize("form", ["keys", "path", "text", "object"])
def test_a_search_takes_its_configuration_in_every_form(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    for place in ("api.run_search", "pipeline.families.search_cells"):
        # What is asked of the study beside its configuration, the third, is nothing here.
        monkeypatch.setattr(f"ftnas.{place}", lambda config, run, *study: given.append((config, run)))
    file, config = quick(tmp_path), RunConfig.model_validate(QUICK)
    forms: dict[str, Any] = {"keys": QUICK, "path": file, "text": str(file), "object": config}
    api.search(forms[form])
    api.search(forms[form], "elsewhere")
    assert given == [(config, Path("runs/quick")), (config, Path("elsewhere"))]


@pytest.mark.parametrize("verb", ["search", "train", "compare"])
def test_a_mistake_in_a_file_names_it_and_one_in_keys_names_the_verb(verb: str, tmp_path: Path) -> None:
    file, more = tmp_path / "mine.yaml", () if verb == "search" else (tmp_path / "out",)
    file.write_text("nonsense: 1\ndata: {name: digits}\n")
    for config, source in ((file, str(file)), ({"nonsense": 1, "data": {"name": "digits"}}, f"ftnas {verb}")):
        with pytest.raises(ConfigError, match="unknown key") as caught:
            getattr(api, verb)(config, *more)
        assert str(caught.value).startswith(f"{source}: ")
    assert not (tmp_path / "out").exists()
