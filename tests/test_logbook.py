from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ftnas.errors import RunError
from ftnas.pipeline.logbook import Logbook, read_metrics

PROBABILITIES = {"normal": {"operators": [[0.5, 0.5], [1.0, 0.0]], "quantization": [[1.0], [1.0]]}}


def events(folder: Path) -> Any:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(tag)]


def test_scalars_are_read_back_with_their_steps(tmp_path: Path) -> None:
    with Logbook(tmp_path) as book:
        book.scalar("loss", 0.5, step=3)
        book.scalars({"loss": 0.25, "study/clean": 1.0}, step=4)
    assert scalars(tmp_path, "loss") == [(3, 0.5), (4, 0.25)]
    assert scalars(tmp_path, "study/clean") == [(4, 1.0)]


def test_lines_say_the_same_as_events(tmp_path: Path) -> None:
    with Logbook(tmp_path) as book:
        book.scalars({"a": 0.5, "b": 2}, step=1)
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"tag": "a", "step": 1, "value": 0.5},
        {"tag": "b", "step": 1, "value": 2},
    ]


def test_architecture_weights_are_means_over_edges_by_name(tmp_path: Path) -> None:
    with Logbook(tmp_path) as book:
        book.architecture_weights(PROBABILITIES, step=0, names={"operators": ["skip", "conv"]})
    assert scalars(tmp_path, "architecture/normal/operators/skip") == [(0, 0.75)]
    assert scalars(tmp_path, "architecture/normal/operators/conv") == [(0, 0.25)]
    assert scalars(tmp_path, "architecture/normal/quantization/0") == [(0, 1.0)]
    assert scalars(tmp_path, "architecture/normal/operators/entropy")[0][1] == pytest.approx(math.log(2) / 2)


def test_architecture_weights_have_histograms(tmp_path: Path) -> None:
    with Logbook(tmp_path) as book:
        book.architecture_weights(PROBABILITIES, step=5)
    [histogram] = events(tmp_path).Histograms("architecture/normal/operators/probabilities")
    assert histogram.step == 5
    assert histogram.histogram_value.num == 4


def test_architecture_weights_of_a_supernet_that_diverged_are_logged_as_far_as_they_are_finite(tmp_path: Path) -> None:
    with Logbook(tmp_path) as book:
        book.architecture_weights({"normal": {"lost": [[math.nan] * 2], "left": [[math.nan, 0.5]]}}, step=1)
    assert events(tmp_path).Tags()["histograms"] == ["architecture/normal/left/probabilities"]
    lines = {line["tag"]: line["value"] for line in read_metrics(tmp_path / "metrics.jsonl")}
    assert lines["architecture/normal/lost/probabilities"] == [None, None]


def test_the_front_is_a_picture(tmp_path: Path) -> None:
    with Logbook(tmp_path) as book:
        book.front([(1e6, 0.5), (2e6, 0.7)], winner=(2e6, 0.9), step=2)
    [picture] = events(tmp_path).Images("front")
    assert picture.step == 2
    assert picture.encoded_image_string.startswith(b"\x89PNG")


def test_hparams_are_in_the_same_folder_with_their_metrics(tmp_path: Path) -> None:
    with Logbook(tmp_path) as book:
        book.hparams({"seed": 1, "fault": "features.bit_flip", "rate": 1e-3, "scaled": True}, {"faulty": 0.75})
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(list(tmp_path.glob("events.out*"))) == 1
    assert scalars(tmp_path, "result/faulty") == [(0, 0.75)]
    found = events(tmp_path).SummaryMetadata("_hparams_/session_start_info")
    assert b"features.bit_flip" in found.plugin_data.content


def test_values_that_are_not_finite_become_null(tmp_path: Path) -> None:
    with Logbook(tmp_path) as book:
        book.scalar("loss", math.nan, step=0)
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["value"] is None


def test_a_second_book_goes_on_after_the_first(tmp_path: Path) -> None:
    for step in (0, 1):
        with Logbook(tmp_path) as book:
            book.scalar("loss", 0.5, step=step)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1]


def test_a_line_that_was_cut_short_is_removed(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"tag": "a", "step": 0, "value": 1}\n{"tag": "a", "st')
    with Logbook(tmp_path) as book:
        book.scalar("a", 2, step=1)
    assert [line["value"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]


def test_equal_runs_write_equal_lines(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with Logbook(tmp_path / name) as book:
            book.architecture_weights(PROBABILITIES, step=1)
    assert (tmp_path / "one/metrics.jsonl").read_bytes() == (tmp_path / "two/metrics.jsonl").read_bytes()


def test_an_error_closes_the_book_and_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Logbook(tmp_path) as book:
        book.scalar("loss", 1.0, step=0)
        raise ZeroDivisionError
    assert scalars(tmp_path, "loss") == [(0, 1.0)]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"tag": "a"}\nnonsense\n')
    with pytest.raises(RunError, match=r"metrics.jsonl: line 2 is not a JSON object"):
        read_metrics(tmp_path / "metrics.jsonl")
