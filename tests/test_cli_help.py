"""Help, exit codes and completion: quick, with examples that are true, plain where no terminal is."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys

import pytest
import typer
from command_line import ftnas

from ftnas.cli.catalogue import FAULTS
from ftnas.cli.examples import EXAMPLES, EXIT_CODES
from ftnas.cli.main import app

COMMANDS = tuple(typer.main.get_group(app).commands)
PROGRAM = [sys.executable, "-m", "ftnas"]
FRAMES, ESCAPE = "╭│┃━", "\x1b["
CODE = re.compile(r"\x1b\[([0-9;]*)m")


def on_terminal(*arguments: str, **environment: str) -> str:
    """Return what the program prints on a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI", "GITHUB_ACTIONS")}
    settings = kept | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment
    with subprocess.Popen([*PROGRAM, *arguments], stdout=theirs, stderr=theirs, stdin=theirs, env=settings) as process:
        os.close(theirs)
        printed = b""
        while chunk := read(ours):
            printed += chunk
    os.close(ours)
    assert process.returncode == 0, printed.decode()
    return printed.decode()


def read(terminal: int) -> bytes:
    """Return some output, nothing when the other end is closed (which Linux tells by an error)."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def complete(*words: str) -> list[str]:
    """Return what bash is offered for the last of ``words``."""
    asked = {"_FTNAS_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    code = """
import sys
from ftnas.cli.main import app
try:
    app(prog_name="ftnas")
finally:
    assert "torch" not in sys.modules
"""
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["faults"], ["--version"]])
def test_help_and_what_needs_no_tensors_import_no_torch(arguments: list[str]) -> None:
    code = f"""
import sys
from ftnas.cli.main import app
try:
    app({arguments})
except SystemExit as end:
    heavy = {{"torch", "numpy", "optuna", "scipy", "matplotlib", "onnx"}} & set(sys.modules)
    sys.exit(str(heavy) if heavy else end.code)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_ends_with_its_examples(command: str) -> None:
    result = ftnas(command, "--help")
    assert result.exit_code == 0
    before, title, examples = result.stdout.partition("Examples:")
    assert "--help" in before and title
    assert [line.strip() for line in examples.splitlines() if line.strip()] == list(EXAMPLES[command])


@pytest.mark.parametrize(("command", "example"), [(name, line) for name in EXAMPLES for line in EXAMPLES[name]])
def test_an_example_is_of_its_command_and_parses(command: str, example: str) -> None:
    program, name, *words = shlex.split(example)
    assert (program, name) == ("ftnas", command)
    group = typer.main.get_group(app)
    with group.make_context("ftnas", [name, *words]) as context:
        found, subcommand, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        assert subcommand is not None
        subcommand.make_context(found, rest, parent=context)


def test_every_command_is_listed_with_its_purpose_and_the_exit_codes_follow() -> None:
    lines = ftnas("--help").stdout.splitlines()
    listed = dict(line.split(maxsplit=1) for line in lines if line.startswith("  ") and len(line.split()) > 1)
    assert [name for name in COMMANDS if name not in listed] == []
    assert lines[-len(EXIT_CODES) :] == [f"  {code:>5}  {meaning}" for code, meaning in EXIT_CODES.items()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["nonsense"], "nonsense"), (["search"], "config"), (["spaces", "--xml"], "--xml"), (["show", "a", "b"], "b")],
)
def test_a_command_line_that_cannot_be_read_ends_with_code_2(arguments: list[str], words: str) -> None:
    result = ftnas(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("show", "--help"), ("faults",)])
def test_a_pipe_gets_neither_frames_nor_colours(arguments: tuple[str, ...]) -> None:
    result = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=True)
    assert [sign for sign in (*FRAMES, ESCAPE) if sign in result.stdout] == []


@pytest.mark.parametrize("arguments", [("--help",), ("faults",)])
def test_a_terminal_gets_frames_and_no_line_wider_than_it_is(arguments: tuple[str, ...]) -> None:
    printed = CODE.sub("", on_terminal(*arguments))
    assert any(frame in printed for frame in FRAMES)
    assert max(map(len, printed.splitlines())) <= 100


def test_no_color_takes_colours_from_a_terminal() -> None:
    assert colours(on_terminal("--help"))
    assert not colours(on_terminal("--help", NO_COLOR="1"))


def colours(text: str) -> list[str]:
    """Return the escape codes of ``text`` that set a colour; bold and dim are none."""
    codes = [code for found in CODE.findall(text) for code in found.split(";")]
    return [code for code in codes if re.fullmatch(r"[349]\d|10\d", code)]


def test_forced_colours_cut_nothing_in_a_pipe() -> None:
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": "60"}
    result = subprocess.run([*PROGRAM, "faults"], capture_output=True, text=True, check=True, env=environment)
    assert len(result.stdout.splitlines()) == 1 + len(FAULTS)


def test_a_terminal_without_controls_gets_plain_help() -> None:
    assert [sign for sign in (*FRAMES, ESCAPE) if sign in on_terminal("--help", TERM="dumb")] == []


def test_a_reader_that_has_seen_enough_ends_a_list_without_a_traceback() -> None:
    command = f"{shlex.join([*PROGRAM, 'faults'])} | head -n 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert (len(result.stdout.splitlines()), "Traceback" in result.stderr) == (1, False)


def test_commands_are_completed() -> None:
    assert complete("ftnas", "s") == [name for name in COMMANDS if name.startswith("s")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("ftnas", "show", "--space", "dig"), ["digits", "digits_weights"]),
        (("ftnas", "show", "--data", "dig"), ["digits"]),
        (("ftnas", "compare", "runs/r1", "resnet"), ["resnet20", "resnet18"]),
        (("ftnas", "train", "vgg"), ["vgg16"]),
        (("ftnas", "campaign", "runs/r1", "--faults", "weights.stuck"), ["weights.stuck_bit", "weights.stuck_cell"]),
        (("ftnas", "export", "runs/r1", "--format", "o"), ["onnx"]),
        (("ftnas", "export", "runs/r1", "--format", "onnx,p"), ["onnx,pt2"]),
    ],
)
def test_names_are_completed_without_torch(words: tuple[str, ...], expected: list[str]) -> None:
    assert complete(*words) == expected
