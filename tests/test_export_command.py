from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import contents, ftnas, lacking, refused
from exported_nets import data, found, own, training_folder

from ftnas.errors import ExportError
from ftnas.export import exporting
from ftnas.export.exporting import FORMATS, chosen_formats
from ftnas.faults import inject
from ftnas.pipeline.exports import export, load

FILES = {"onnx": {"net.onnx"}, "pt2": {"net.pt2"}, "safetensors": {"net.safetensors", "net.json"}}
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler")


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_folder(tmp_path_factory.mktemp("run"), found())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_words_behind_a_format_are_formats_and_the_proof_is_printed(tmp_path: Path, training: Path) -> None:
    out = tmp_path / "dist"
    result = ftnas("export", training, "--format", "onnx", "safetensors", "--out", out, "--images", 50)
    assert result.exit_code == 0, (result.output, result.exception)
    assert not lacking(result.stdout, ["onnx", "safetensors", "50 of 50", "default optimisation", "fault-free", out])
    assert names(out) == FILES["onnx"] | FILES["safetensors"] | {"proof.json"}
    assert names(tmp_path) == {"dist"}


@needs_compiler
def test_one_folder_takes_every_format_of_a_net_one_after_the_other(tmp_path: Path) -> None:
    for formats in (["onnx,pt2"], ["safetensors", "c"], ["onnx"]):
        proofs = export(own(), formats, tmp_path / "dist")
    written = json.loads((tmp_path / "dist" / "proof.json").read_text(encoding="utf-8"))
    assert {proof["format"] for proof in written["proofs"]} == set(FORMATS) == {p.format for p in proofs.proofs}
    assert all((proof["same"], proof["images"]) == (80, 80) for proof in written["proofs"])
    assert {file for proof in written["proofs"] for file in proof["files"]} | {"proof.json"} == names(tmp_path / "dist")


def test_json_is_the_proof(tmp_path: Path, training: Path) -> None:
    result = ftnas("export", training, "safetensors", "--out", tmp_path / "d", "--images", 20, "--json")
    (proof,) = json.loads(result.stdout)["proofs"]
    assert (proof["same"], proof["largest"], proof["beyond"]) == (20, 0.0, 0)


def test_a_faulty_twin_says_which_chip_it_is_and_computes_it(tmp_path: Path) -> None:
    fault, net = "weights.bit_flip:3e-2", found()
    proofs = export(net, ["onnx", "safetensors"], tmp_path / "twin", faults=[fault], chip=4, name="twin")
    assert proofs.facts["chip"] == "chip 4 of study 'campaign': weights.bit_flip:0.03"
    with inject(net.model, fault, chip=4, study="campaign"), torch.no_grad():
        assert torch.equal(load(tmp_path / "twin")(data().test_images), net.model(data().test_images))
    with pytest.raises(ExportError, match=r"holds the export of found as twin, chip 4 .*choose another with --out"):
        export(net, ["pt2"], tmp_path / "twin", name="twin")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--format", "none is given", *FORMATS]),
        (["--format", "tflite"], ["unknown format 'tflite'", *FORMATS]),
        (["onnx,"], ["NET", "onnx,"]),
        (["onnx", "other"], ["NET", "other", "one net"]),
        (["onnx", "--chip", "3"], ["--chip", "--faults"]),
        (["onnx", "--name", "My net"], ["--name", "'My net'", "'my_net'"]),
        (["onnx", "--name", "main"], ["--name", "'main'"]),
        (["onnx", "--faults", "features.bit_flip:1e-3"], ["features.bit_flip", "permanent faults of stored weights"]),
        (["onnx", "--faults", "weights.bit_flip:1e-3,1e-2"], ["one rate"]),
        (["onnx", "--faults", "weights.gaussian:0.1"], ["weights.gaussian", "no integers hold it"]),
        (["onnx", "--images", "9999"], ["images", "9999"]),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path: Path, training: Path, arguments: Sequence[str], words: Sequence[str]
) -> None:
    (tmp_path / "empty").mkdir()
    line = refused(tmp_path, "export", training, *arguments, "--out", tmp_path / "dist")
    assert not lacking(line, words)


def test_a_missing_net_is_one_line(tmp_path: Path) -> None:
    assert "NET: is missing" in refused(tmp_path, "export", "onnx", "--out", tmp_path / "dist")
    assert "nowhere" in refused(tmp_path, "export", tmp_path / "nowhere", "onnx", "--out", tmp_path / "dist")


@pytest.mark.parametrize("what", ["file", "folder", "damaged", "list"])
def test_another_folder_is_not_written_into(tmp_path: Path, what: str) -> None:
    out = tmp_path / "dist"
    if what == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        texts = {"folder": ("notes.txt", "mine"), "damaged": ("proof.json", "{"), "list": ("proof.json", "[]")}
        (out / texts[what][0]).write_text(texts[what][1])
    before = contents(tmp_path)
    with pytest.raises(ExportError, match=r"^[^\n]+dist[^\n]+--out$"):
        export(found(), ["safetensors"], out)
    assert contents(tmp_path) == before


def test_a_proof_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = exporting.run_onnx

    def wrong(*arguments: Any, **options: Any) -> list[np.ndarray]:
        return [values + 0.5 for values in run(*arguments, **options)]

    monkeypatch.setattr(exporting, "run_onnx", wrong)
    with pytest.raises(ExportError, match=r"^onnx: 80 of 80 images have other logits than the net"):
        export(found(), ["safetensors", "onnx"], tmp_path / "dist")
    assert not names(tmp_path)


def test_a_runtime_that_optimises_answers_away_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = exporting.run_onnx

    def wrong(*arguments: Any, optimised: bool = False, **options: Any) -> list[np.ndarray]:
        found = run(*arguments, optimised=optimised, **options)
        return [-values for values in found] if optimised else found

    monkeypatch.setattr(exporting, "run_onnx", wrong)
    with pytest.raises(ExportError, match=r"^onnx: optimised by onnxruntime .* of 80 answers are the net's"):
        export(found(), ["onnx"], tmp_path / "dist")


def test_a_net_that_computes_no_numbers_is_refused(tmp_path: Path) -> None:
    net = own()
    with torch.no_grad():
        net.model.classifier.bias.fill_(torch.nan)
    with pytest.raises(ExportError, match="not finite"):
        export(net, ["onnx"], tmp_path / "dist")


def test_what_a_kill_left_behind_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".dist.part").mkdir()
    (tmp_path / ".dist.part" / "net.onnx").write_text("half")
    export(found(), ["safetensors"], tmp_path / "dist")
    assert names(tmp_path) == {"dist"}
    assert names(tmp_path / "dist") == FILES["safetensors"] | {"proof.json"}


def test_the_same_command_goes_on_after_a_kill_between_two_files(tmp_path: Path) -> None:
    export(found(), ["safetensors", "onnx"], tmp_path / "dist")
    (tmp_path / "dist" / "net.onnx").unlink()
    (tmp_path / "dist" / "net.json").unlink()
    proofs = export(found(), ["safetensors"], tmp_path / "dist")
    assert [proof.format for proof in proofs.proofs] == ["safetensors"]


@pytest.mark.parametrize(
    ("texts", "found"),
    [(["onnx"], ("onnx",)), (["c", "onnx, c"], ("c", "onnx")), (["pt2,safetensors"], ("pt2", "safetensors"))],
)
def test_formats_are_read_once_each_in_their_order(texts: Sequence[str], found: Sequence[str]) -> None:
    assert chosen_formats(texts) == found
