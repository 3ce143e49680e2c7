"""What a file from a stranger names stays where it is: names, links, pipes, and texts that are shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command_line import SMOKE, make_run, refused
from fuzz_folders import small_run

from ftnas.configuration import read_yaml
from ftnas.data import load_data
from ftnas.errors import ConfigError, DataError, FtnasError, RunError
from ftnas.files import read_json, read_tensors, write_json
from ftnas.pipeline.config import load_config
from ftnas.pipeline.exports import load
from ftnas.pipeline.run_folder import reopen
from ftnas.report.page import write_report
from ftnas.report.record import read_run
from ftnas.untrusted import inside, path_of, plain_name


@pytest.mark.parametrize("name", ["../../outside", "/etc", "..", ".", "", "a/b", "a\\b\0", 7, None, "x" * 300])
def test_the_name_of_a_training_is_no_path(name: object, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_json(run / "winner" / "result.json", {"name": name})
    with pytest.raises(RunError, match="is no name of a file"):
        load(run)


def test_names_that_ftnas_gives_are_names(tmp_path: Path) -> None:
    for name in ("winner-ftt", "top1-3f2a9c", "resnet20-x1.5-w8:f8".replace(":", "-"), "Small-ftt-2", "cell 3f"):
        assert plain_name(name, "a") == name


@pytest.mark.parametrize("name", ["config.yaml.part", "trainings", "winner/result.json", "loop", "study/journal.log"])
def test_a_link_out_of_a_run_folder_is_followed_neither_to_read_nor_to_write(name: str, tmp_path: Path) -> None:
    run, outside = make_run(tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    place = run / name
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(place if name == "loop" else outside)
    for use in (reopen, load, read_run, write_report):
        with pytest.raises(RunError, match="leads out of"):
            use(run)
    assert not list(outside.iterdir())


def test_a_link_in_the_place_of_a_half_written_file_is_replaced(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".a.json.part").symlink_to(outside)
    write_json(tmp_path / "run" / "a.json", [1])
    assert (outside.read_text(), read_json(tmp_path / "run" / "a.json")) == ("mine", [1])


def test_a_link_within_a_run_folder_is_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "same.yaml").symlink_to("config.yaml")
    assert reopen(run).path == run
    assert inside(run, run / "same.yaml") == run / "same.yaml"


@pytest.mark.parametrize("name", ["config.yaml", "winner/result.json"])
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / name).unlink(missing_ok=True)
    (run / name).parent.mkdir(exist_ok=True)
    os.mkfifo(run / name)
    with pytest.raises(RunError, match="neither a file nor a folder"):
        reopen(run)
    for reader, kind in ((read_yaml, ConfigError), (read_json, RunError), (read_tensors, RunError)):
        with pytest.raises(kind, match="it is not a file"):
            reader(run / name)  # type: ignore[operator]
    with pytest.raises(DataError, match="is not a file"):
        load_data("npz", directory=run / name)


def test_a_name_of_a_run_in_a_configuration_stays_below_runs(tmp_path: Path) -> None:
    for name in ("..", ".", ".ssh", "a/b", "a\n"):
        line = refused(tmp_path, "search", SMOKE, "--set", f"name={json.dumps(name)}")
        assert "name: String should match pattern" in line


def test_a_script_in_the_name_of_a_net_is_text_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftnas.report.figures.write_png", lambda drawing, path: path.write_bytes(b"PNG"))
    run = small_run(tmp_path / "run")
    evil = "<script>alert(1)</script>"
    for file in (run / "comparison.json", run / "winner" / "result.json"):
        file.write_text(file.read_text().replace('"label": "', f'"label": "{evil}'))
    page = write_report(run).read_text()
    assert evil not in page and "&lt;script&gt;alert(1)" in page


def test_an_image_that_is_another_program_s_language_is_not_given_to_that(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(2):
            (tmp_path / label / f"{number}.png").write_bytes(
                b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EOF\n"
            )
    with pytest.raises(DataError, match="is not a whole image"):
        load_data("folder", directory=tmp_path)


def test_what_a_file_says_moves_no_cursor(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text('"\\e[2Jkey": 1\n')
    with pytest.raises(ConfigError, match=r"\?\[2Jkey: unknown key") as error:
        load_config(file)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("text", ["x" * 300, "a\0b", "\ud800", "a/" * 3000])
def test_a_path_that_no_file_system_has_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="is no path"):
        path_of(text)


def test_a_drawing_of_a_stranger_is_no_bomb() -> None:
    from ftnas.report.drawing import genotype_from_svg

    with pytest.raises(FtnasError, match="DOCTYPE is not allowed"):
        genotype_from_svg("<!DOCTYPE x [<!ENTITY a 'aaaa'>]><svg>&a;</svg>")
