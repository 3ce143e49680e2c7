"""``ftnas show``: cells as text that says all of a genotype, cost and scores of runs, trainings and genotype files."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from campaign_support import calibrated
from command_line import ftnas, lacking, make_run, refused
from fake_run import fake_run
from genotype_strategies import any_genotype
from hypothesis import given, settings

from ftnas.cli.cell_drawing import ASCII, NEEDED, UNICODE, Glyphs, cell_lines, genotype_lines
from ftnas.cost import genotype_cost
from ftnas.export.weights import save_weights
from ftnas.networks import CellNetwork
from ftnas.quantization import Quantization
from ftnas.space import Cell, Edge, Genotype, hand_made, load_space, w_ftt_net

DIGITS = load_space("digits")
HAND_MADE = hand_made(DIGITS)


def shown(*arguments: object) -> str:
    result = ftnas("show", *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def plain(*arguments: object) -> Any:
    return json.loads(shown(*arguments, "--json"))


def edges_of(lines: list[str], glyphs: Glyphs) -> list[list[tuple[str, int]]]:
    """Read (operator, source) of each node out of a drawing; an edge that reads nothing has source 0."""
    nodes: list[list[tuple[str, int]]] = [[]]
    for line in lines[2:]:
        wire = re.search(rf"[{re.escape(glyphs.tee + glyphs.end)}]", line)
        operator = re.search(r"[a-z][a-z0-9_]+", line)
        if operator and "concatenated" not in line:
            nodes[-1].append((operator[0], 0 if operator[0] == "none" or wire is None else wire.start() // 4))
        elif re.search(rf"\d (= 0|{re.escape(glyphs.back)})", line):
            nodes.append([])
    return nodes[:-1]


def said(cell: Cell) -> list[list[tuple[str, int]]]:
    return [[(edge.operator, 0 if edge.operator == "none" else edge.source) for edge in node] for node in cell]


@settings(max_examples=60)
@given(any_genotype)
def test_a_drawing_says_what_each_node_reads_and_applies(genotype: Genotype) -> None:
    for glyphs in (UNICODE, ASCII):
        for kind in ("normal", "reduction") if genotype.reduction else ("normal",):
            cell = genotype.cell(kind)
            assert edges_of(cell_lines(cell, kind, glyphs), glyphs) == said(cell)


@settings(max_examples=60)
@given(any_genotype)
def test_the_rails_of_a_drawing_have_no_gaps(genotype: Genotype) -> None:
    lines = cell_lines(genotype.normal, "normal", UNICODE)
    for above, below in itertools.pairwise(lines[1:]):
        for column, sign in enumerate(above[: 4 * len(genotype.normal) + 8]):
            if column % 4 == 0 and sign in "│├" and column < len(below):
                assert below[column] in "│├┼╰┴", (above, below)


@settings(max_examples=30)
@given(any_genotype)
def test_a_drawing_in_ascii_is_ascii(genotype: Genotype) -> None:
    assert "\n".join(genotype_lines(genotype, ASCII)).isascii()


def test_the_signs_that_a_terminal_must_have_are_those_of_the_drawing() -> None:
    used = {sign for line in genotype_lines(w_ftt_net(), UNICODE) for sign in line if not sign.isascii()}
    assert used <= set(NEEDED)


def test_numbers_are_drawn_where_an_operator_has_some() -> None:
    odd = Quantization(weight_bits=4, feature_bits=6)
    drawn = cell_lines(
        ((Edge("conv_1x1", 0, odd), Edge("max_pool_3x3", 1, odd), Edge("skip_connect", 1, odd)),), "normal"
    )
    assert [("w4 2ⁿ f6 2ⁿ" in line) for line in drawn[2:5]] == [True, False, False]
    reduced = cell_lines(((Edge("skip_connect", 1, odd),),), "reduction")
    assert "skip_connect /2  w4 2ⁿ f6 2ⁿ" in reduced[2]


def test_a_run_is_shown_as_its_winner_with_cells_cost_scores_and_verdict(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    printed = shown(run)
    winner = json.loads((run / "winner" / "result.json").read_text())
    rates = [f"{100 * rate['mean']:.1f} %" for rate in winner["rates"]]
    words = [winner["name"], winner["key"], "normal cell", "reduction cell", "0.700 MFLOPs", "20 chips", *rates]
    assert lacking(printed, [*words, "The winner keeps", "warning: only 6 of 10 random cells"]) == []


def test_a_run_as_json_holds_genotype_cost_and_intervals(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    found = plain(run)
    winner = json.loads((run / "winner" / "result.json").read_text())
    assert found["genotype"] == json.loads((run / "winner" / "genotype.json").read_text())
    assert found["cost"]["flops"] == winner["flops"]
    first = found["result"]["rates"][0]
    assert {key: first[key] for key in ("mean", "low", "high")} == {
        key: min(winner["rates"], key=lambda rate: rate["rate"])[key] for key in ("mean", "low", "high")
    }


def test_an_unfinished_run_is_told_apart(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", until="study")
    assert lacking(refused(tmp_path, "show", run), [run, "has no winner yet", "trainings"]) == []


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """Return a finished training of a hand-made cell, below a run that has only begun."""
    run = make_run(tmp_path / "run")
    home = run / "trainings" / "hand"
    home.mkdir(parents=True)
    result = json.loads((fake_run(tmp_path / "other") / "winner" / "result.json").read_text())
    model = {"genotype": hand_made(load_space("tiny")).to_dict(), "channels": 6}
    (home / "model.json").write_text(json.dumps({"name": "hand", "label": "by hand", "model": model}))
    (home / "result.json").write_text(json.dumps(result | {"failure": "diverged in epoch 3"}))
    return home


def test_a_training_is_shown_with_its_cells_its_layout_and_how_it_failed(training: Path) -> None:
    printed = shown(training)
    sizes = load_space("tiny").final
    words = ["by hand", f"{sizes.cells} cells", "6 channels", "0.700 MFLOPs", "warning: diverged in epoch 3"]
    assert lacking(printed, words) == []


def test_a_baseline_is_shown_by_its_name_and_width(training: Path) -> None:
    model = {"baseline": "resnet20", "width": 0.25, "numbers": Quantization().to_dict()}
    (training / "model.json").write_text(json.dumps({"name": "net", "label": "net", "model": model}))
    assert "resnet20, 0.25 times" in shown(training)
    assert plain(training)["model"] == model


def test_a_training_of_ones_own_net_is_shown_by_its_file(training: Path) -> None:
    model = {"python": "/nets/mine.py:Net", "source": "1234", "bits": 6}
    (training / "model.json").write_text(json.dumps({"name": "net", "label": "Net", "model": model}))
    assert "/nets/mine.py:Net, quantised to 6 bits" in shown(training)
    assert plain(training)["model"] == {"python": "/nets/mine.py:Net", "bits": 6}


def test_a_model_of_ones_own_is_shown_with_its_cost(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))\n"
    )
    found = plain(f"{tmp_path / 'mine.py'}:net", "--data", "digits", "--bits", 6)
    assert found["cost"]["flops"] == 2 * (36 * 36 + 1440)
    assert (found["cost"]["weight_bits"], found["result"]) == (6 * (36 + 1440), None)


def test_a_training_that_is_not_finished_says_so(training: Path) -> None:
    (training / "result.json").unlink()
    assert "not finished" in shown(training)
    assert plain(training)["result"] is None


@pytest.mark.parametrize("place", ["", "net.safetensors", "net.json"])
def test_an_exported_net_is_shown_without_its_data(place: str, tmp_path: Path) -> None:
    tiny = load_space("tiny")
    genotype = hand_made(tiny)
    net = CellNetwork(tiny, tiny.final, image_shape=(1, 8, 8), classes=10, genotype=genotype)
    net(torch.zeros(2, 1, 8, 8))
    ends = {"image_shape": [1, 8, 8], "classes": 10}
    spec = ends | {"genotype": genotype.to_dict(), "space": tiny.to_dict(), "sizes": tiny.final.model_dump(mode="json")}
    save_weights(tmp_path / "net.safetensors", net, spec, facts={"source": "winner", "chip": "chip 3 of study 'x'"})
    found = plain(tmp_path / place)
    cost = genotype_cost(genotype, tiny, tiny.final, image_shape=(1, 8, 8))
    assert (found["name"], found["key"], found["notes"]) == ("winner", genotype.key, ["chip: chip 3 of study 'x'"])
    assert (found["cost"]["flops"], found["cost"]["weight_bits"]) == (cost.flops, cost.weight_bits)
    assert f"{tiny.final.cells} cells" in shown(tmp_path / place)


def test_an_exported_net_of_ones_own_is_named(tmp_path: Path) -> None:
    save_weights(tmp_path / "net.safetensors", calibrated(), None)
    assert "built by code of your own: SmallNet" in shown(tmp_path)


@pytest.fixture
def genotype(tmp_path: Path) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(HAND_MADE.to_json())
    return path


def test_the_cost_of_a_genotype_file_is_that_of_its_space_and_data(genotype: Path) -> None:
    cost = genotype_cost(HAND_MADE, DIGITS, DIGITS.final, image_shape=(1, 8, 8), classes=10)
    found = plain(genotype, "--space", "digits", "--data", "digits")["cost"]
    assert (found["flops"], found["parameters"]) == (cost.flops, cost.parameters)
    at_cifar = genotype_cost(HAND_MADE, DIGITS, DIGITS.final)
    assert plain(genotype, "--space", "digits")["cost"]["flops"] == at_cifar.flops


def test_a_genotype_file_without_its_space_is_drawn_without_a_cost(genotype: Path) -> None:
    printed = shown(genotype)
    assert lacking(printed, [HAND_MADE.key, "sep_conv_3x3", "--space"]) == []
    assert "MFLOPs" not in printed


def test_the_scores_beside_a_winners_genotype_are_shown_with_it(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    assert plain(run / "winner" / "genotype.json")["result"] == plain(run)["result"]
    (run / "winner" / "genotype.json").write_text(HAND_MADE.to_json())
    assert plain(run / "winner" / "genotype.json")["result"] is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["No such file"]),
        ("{", ["is not JSON"]),
        ("[]", ["a mapping is needed"]),
        ('{"schema": 2, "normal": [], "reduction": []}', ["schema must be 1, got 2"]),
        ('{"schema": 1, "normal": []}', ["'reduction' is missing"]),
        (b"\xff\xfe\x00", ["is not text"]),
    ],
)
def test_a_file_that_is_no_genotype_is_refused(content: str | bytes | None, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert lacking(refused(tmp_path, "show", path), [path, *words]) == []


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ([{"operator": "conv_9x9", "source": 0}], ["unknown operator 'conv_9x9'", "conv_1x1"]),
        ([{"operator": "conv_1x1", "source": 5}], ["source of node 2 must be 0..1, got 5"]),
    ],
)
def test_a_genotype_that_cannot_be_drawn_is_refused(
    edges: list[dict[str, Any]], words: list[str], tmp_path: Path
) -> None:
    node = [edge | {"quantization": Quantization().to_dict()} for edge in edges]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"schema": 1, "normal": [node], "reduction": []}))
    assert lacking(refused(tmp_path, "show", path), words) == []


def test_a_genotype_of_another_space_is_refused(genotype: Path, tmp_path: Path) -> None:
    line = refused(tmp_path, "show", genotype, "--space", "darts_feature_faults")
    assert lacking(line, ["darts_feature_faults", "normal", "4 nodes"]) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "digits"], ["--data", "--space"]),
        (["--data-dir", "x"], ["--data-dir", "--space"]),
        (["--space", "digits", "--data-dir", "x"], ["--data-dir", "--data"]),
        (["--bits", "4"], ["--bits", "their own"]),
    ],
)
def test_an_option_that_changes_nothing_of_a_genotype_is_refused(
    options: list[str], words: list[str], genotype: Path, tmp_path: Path
) -> None:
    assert lacking(refused(tmp_path, "show", genotype, *options), words) == []


@pytest.mark.parametrize("options", [["--data", "digits"], ["--data-dir", "x"], ["--bits", "4"]])
def test_an_option_that_changes_nothing_of_a_training_is_refused(
    options: list[str], training: Path, tmp_path: Path
) -> None:
    assert lacking(refused(tmp_path, "show", training, *options), [options[0], training]) == []


def test_the_space_of_a_run_is_its_own(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    assert lacking(refused(tmp_path, "show", run, "--space", "digits"), ["--space", run]) == []


def test_a_damaged_result_is_named(training: Path, tmp_path: Path) -> None:
    (training / "result.json").write_text('{"name": "x"}')
    (line, *_) = ftnas("show", training).stderr.splitlines()
    assert line.startswith(f"ftnas: {training / 'result.json'}: label")


def test_what_is_no_net_is_refused_with_what_is_one(tmp_path: Path) -> None:
    line = refused(tmp_path, "show", tmp_path / "nowhere")
    assert lacking(line, [tmp_path / "nowhere", "run folder"]) == []
