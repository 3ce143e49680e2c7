"""A net in a Python file of the user's: what it may be, what it is given, and how mistakes are told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ftnas.consent import VARIABLE
from ftnas.errors import ModelError
from ftnas.importing.python_file import is_class, load_python

NETS = """
import torch
from torch import nn
from sizes import WIDTH

print("hello")

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, WIDTH)

    def forward(self, x):
        return self.fc(x.flatten(1))

class Asks(Plain):
    def __init__(self, num_classes, image_shape=(9, 9, 9), depth=2):
        super().__init__()
        self.given = num_classes, image_shape, depth

class AsksOtherwise(Plain):
    def __init__(self, *, classes, **rest):
        super().__init__()
        self.given = classes, rest

class Needy(Plain):
    def __init__(self, width, height, classes):
        super().__init__()

class Broken(Plain):
    def __init__(self):
        raise RuntimeError("no\\n  weights")

instance = Plain()

def made():
    return Plain()

def nothing():
    return 7

number = 3
"""


@pytest.fixture(autouse=True)
def allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user has named the file."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "my_models.py"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "sizes.py").write_text("WIDTH = 5\n")
    path = tmp_path / "my_models.py"
    path.write_text(NETS)
    return path


def load(file: Path, name: str, *, seed: int = 0) -> nn.Module:
    return load_python(file, name, image_shape=(1, 2, 2), classes=5, seed=seed)


def weight(net: nn.Module) -> Tensor:
    found = net.get_parameter("fc.weight").detach()
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("name", ["Plain", "instance", "made"])
def test_a_class_an_instance_and_a_function_give_a_net(file: Path, name: str) -> None:
    assert load(file, name)(torch.ones(3, 1, 2, 2)).shape == (3, 5)


def test_a_class_is_given_the_classes_and_the_image_shape_that_it_asks_for(file: Path) -> None:
    assert load(file, "Asks").given == (5, (1, 2, 2), 2)
    assert load(file, "AsksOtherwise").given == (5, {})


@pytest.mark.parametrize("name", ["Plain", "instance", "made"])
def test_the_weights_follow_from_the_seed_and_from_nothing_else(file: Path, name: str) -> None:
    torch.manual_seed(1)
    first, before = load(file, name), torch.rand(1)
    torch.manual_seed(2)
    assert torch.equal(weight(load(file, name)), weight(first))
    assert not torch.equal(weight(load(file, name, seed=1)), weight(first))
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), before), "the caller's random stream goes on as if no file had been read"


def test_a_file_leaves_no_trace_in_the_search_path_and_prints_beside_our_output(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list(sys.path)
    load(file, "Plain")
    assert sys.path == before
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello\n")


def test_only_a_class_is_untrained(file: Path) -> None:
    assert is_class(file, "Plain")
    assert not is_class(file, "instance")
    assert not is_class(file, "made")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MyNet", ["my_models.py: has nothing called 'MyNet'", "nets there: Plain, Asks", "Broken, instance"]),
        ("number", ["my_models.py:number: is a int", "a function"]),
        ("nothing", ["my_models.py:nothing: is a int", "allowed is a torch.nn.Module"]),
        ("Needy", ["my_models.py:Needy: needs width, height", "num_classes=", "image_shape="]),
        ("Broken", ["my_models.py:Broken: cannot be built: RuntimeError: no weights"]),
    ],
)
def test_a_name_that_is_no_net_is_told_in_one_line(file: Path, name: str, words: list[str]) -> None:
    with pytest.raises(ModelError) as refusal:
        load(file, name)
    assert [word for word in words if word not in str(refusal.value)] == []
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ny = undefined\n", "my_models.py, line 2: the file does not run: NameError: name 'undefined'"),
        ("x = 1\n\ndef f(:\n", "my_models.py, line 3: the file does not run: SyntaxError"),
        ("import sys\nsys.exit(3)\n", "my_models.py, line 2: the file does not run: SystemExit: 3"),
        ("import nowhere_to_be_found\n", "ModuleNotFoundError"),
        (None, "my_models.py: is not there"),
    ],
)
def test_a_file_that_does_not_run_is_told_with_its_line(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "my_models.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ModelError) as refusal:
        load(path, "Net")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_nothing_is_written_beside_a_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.delitem(sys.modules, "sizes", raising=False)
    load(file, "Plain")
    assert {path.name for path in file.parent.iterdir()} == {"my_models.py", "sizes.py"}
    assert not sys.dont_write_bytecode
