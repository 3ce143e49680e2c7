"""What the fuzzers found in plans, records and checkpoints, one by one."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exported_nets
import pytest
import torch
from faulty_net import trained_net

from ftnas import api
from ftnas.campaign.records import SCHEMA, encoded, open_records, read_records
from ftnas.campaign.units import check_unit
from ftnas.errors import CampaignError, FaultError, RunError
from ftnas.faults import draw_plan, load_plan, save_plan
from ftnas.files import read_tensors, write_tensors
from ftnas.pipeline.failures import recorded
from ftnas.training.checkpoints import load_checkpoint, save_checkpoint


@pytest.mark.parametrize(
    "changes",
    [{"faults": [None]}, {"faults": 7}, {"images": [0, 10**400]}, {"images": None}, {"study": 7}, {"chip": []},
     {"sites": [[None, 0, [1], 8]]}, {"sites": [["stem.weight", 5, [1], 8]]}, {"sites": [["stem.weight", 0, [-1], 8]]},
     {"sites": [["stem.weight", 0, ["x"], 8]]}, {"sites": 7}],
    ids=str,
)  # fmt: skip
def test_a_plan_of_wrong_types_is_one_line(changes: dict[str, Any], tmp_path: Path) -> None:
    file, net = tmp_path / "a.plan", trained_net()
    save_plan(draw_plan(net, "weights.bit_flip:0.01"), file)
    tensors, metadata = read_tensors(file)
    write_tensors(file, tensors, {"plan": {**metadata["plan"], **changes}})
    with pytest.raises(FaultError, match=r"a\.plan|unknown fault"):
        load_plan(file, net)


@pytest.mark.parametrize("line", [b"[]", b'{"rates":1}', b'{"unit":7}', b'{"unit":' + b"[" * 5000])
def test_a_record_with_its_checksum_but_no_unit_is_one_line(line: bytes, tmp_path: Path) -> None:
    header = {"schema": SCHEMA}
    body = line if line.endswith(b"[") else json.dumps(json.loads(line), separators=(",", ":")).encode()
    whole = body[:-1] + b',"crc32":"' + f"{zlib.crc32(body[:-1] + b'}'):08x}".encode() + b'"}\n'
    (tmp_path / "records.jsonl").write_bytes(encoded(header) + whole)
    assert "line 2" in (read_records(tmp_path / "records.jsonl").problem or "")
    with pytest.raises(CampaignError, match="line 2"), open_records(tmp_path / "records.jsonl", header):
        pass


WHOLE = {"images": {"images": 4, "masked": 4, "benign": 0, "sdc1": 0, "due": 0}, "faults": {"flip": 3}}


@pytest.mark.parametrize(
    "part",
    [{}, {"images": None}, {"images": {"images": 4}}, {"score": 2}, {"score": "x"}, {**WHOLE, "faults": {"flip": -1}}],
    ids=str,
)
def test_a_record_without_its_counts_is_not_counted(part: dict[str, Any]) -> None:
    check_unit({"unit": "chip 0", "rates": [WHOLE]})
    for record in ({"unit": "chip 0", "rates": [WHOLE, part]}, {"unit": "weight 3", **part}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            check_unit(record)


def test_records_of_a_campaign_of_wrong_types_are_one_line(tmp_path: Path) -> None:
    net = exported_nets.Checkpoint("baseline", exported_nets.baseline().model, exported_nets.data())
    options = {"faults": ["weights.bit_flip:0.01"], "chips": 2}
    api.campaign(net, options, tmp_path)
    lines = (tmp_path / "records.jsonl").read_bytes().splitlines(keepends=True)
    for wrong, words in (({"rates": []}, "needs 1 rates"), ({"rates": [{"images": {}}]}, "record chip 0: is damaged")):
        unit = {**json.loads(lines[1]), **wrong}
        unit.pop("crc32")
        (tmp_path / "records.jsonl").write_bytes(b"".join([lines[0], encoded(unit), *lines[2:]]))
        with pytest.raises(CampaignError, match=words):
            api.campaign(net, options, tmp_path)


def checkpoint(folder: Path, progress: Any, change: Callable[[dict[str, Any]], None] = lambda tensors: None) -> Path:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    file = folder / "checkpoint.safetensors"
    save_checkpoint(file, model, {"sgd": optimizer}, {"epoch": 0})
    tensors, _ = read_tensors(file)
    change(tensors)
    write_tensors(file, tensors, progress)
    with pytest.raises(RunError, match=r"checkpoint\.safetensors: "):
        load_checkpoint(file, model, {"sgd": optimizer})
        recorded(file)
    return file


def test_a_checkpoint_of_wrong_types_is_one_line(tmp_path: Path) -> None:
    checkpoint(tmp_path, {"records": None})
    checkpoint(tmp_path, {"records": [7]})
    checkpoint(tmp_path, {}, lambda tensors: tensors.update({"sgd.99.momentum_buffer": torch.ones(2, 2)}))
    checkpoint(tmp_path, {}, lambda tensors: tensors.update({"sgd.x.momentum_buffer": torch.ones(2, 2)}))
    checkpoint(tmp_path, {}, lambda tensors: tensors.update({"sgd.0.momentum_buffer": torch.ones(3)}))
