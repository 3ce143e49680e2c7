"""A torch.export program as a net: the same numbers and names as the model's own, and nothing unpickled."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from user_nets import user_model

from ftnas.errors import ModelError
from ftnas.faults import quantize
from ftnas.importing.exported_program import load_program

WEIGHTS, MODEL, SAMPLES = "data/weights/model_weights_config.json", "models/model.json", "data/sample_inputs/model.pt"


class Mixed(nn.Module):
    """What the other nets have not: pieces, a buffer, dropout, a change in place, a convolution called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding="same")
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout()
        self.fc = nn.Linear(4 * 16, 10)
        self.train_ = nn.Sequential(nn.Identity(), nn.Linear(10, 10, bias=False))
        self.register_buffer("middle", torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.conv(x - self.middle).chunk(2, 1)
        y = torch.cat([F.max_pool2d(self.again(self.again(first)), 2), F.avg_pool2d(second, 2)], 1)[:, :4]
        F.relu(y, inplace=True)
        y = y.clamp(max=3.0).reshape(y.shape[0], -1)
        logits: Tensor = self.train_(F.hardswish(self.fc(self.drop(y))))
        return logits


def save(model: nn.Module, images: Tensor, file: Path, *, dynamic: bool = True, core: bool = False) -> Path:
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own workings
        program = torch.export.export(model, (images,), dynamic_shapes=shapes)
        torch.export.save(program.run_decompositions() if core else program, file)
    return file


def model_and_images(name: str) -> tuple[nn.Module, Tensor]:
    if name != "mixed":
        return user_model(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Mixed().eval(), torch.randn(20, 1, 8, 8)


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, images = user_model("residual")
    return save(model, images[:2], tmp_path_factory.mktemp("programs") / "residual.pt2")


def rewritten(source: Path, file: Path, records: dict[str, bytes | None], *, packed: bool = False) -> Path:
    """Write ``source`` anew with other ``records``; ``None`` leaves one out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            root, _, name = info.filename.partition("/")
            content = records.get(name, old.read(info))
            if content is not None:
                kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
                new.writestr(f"{root}/{name}", content, compress_type=kind)
    return file


def changed(source: Path, file: Path, name: str, change: Callable[[Any], None]) -> Path:
    """Write ``source`` anew with its JSON record ``name`` changed."""
    with zipfile.ZipFile(source) as archive:
        content = json.loads(archive.read(f"{source.stem}/{name}"))
    change(content)
    return rewritten(source, file, {name: json.dumps(content).encode()})


def refusal(file: Path) -> str:
    with pytest.raises(ModelError) as refused:
        load_program(file)
    line = str(refused.value)
    assert line.startswith(f"{file}: ") and "\n" not in line
    return line


@pytest.mark.parametrize(
    ("name", "dynamic", "core"),
    [
        ("plain_cnn", True, False), ("residual", True, False), ("depthwise", False, True), ("audio", True, False),
        ("volume", True, False), ("mixed", False, False), ("mixed", True, False),
    ],
)  # fmt: skip
def test_a_program_gives_the_models_own_numbers_names_and_quantised_copy(
    name: str, dynamic: bool, core: bool, tmp_path: Path
) -> None:
    model, images = model_and_images(name)
    net = load_program(save(model, images[:2], tmp_path / "net.pt2", dynamic=dynamic, core=core))
    assert torch.equal(net(images), model(images)), "any number of images, whatever was fixed in the file"
    layers = {path: value for path, value in net.state_dict().items() if "constant" not in path}
    own = {path: value for path, value in model.state_dict().items() if path != "middle"}
    assert layers.keys() == own.keys()
    assert torch.equal(quantize(net, images)(images), quantize(model, images)(images))


def test_a_layer_that_is_called_twice_stays_one_layer(tmp_path: Path) -> None:
    model, images = model_and_images("mixed")
    net = load_program(save(model, images[:2], tmp_path / "net.pt2"))
    assert sum(isinstance(layer, nn.Conv2d) for layer in net.modules()) == 2


def test_nothing_is_unpickled(residual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return pytest.fail, ("unpickled",)

    def refuse(*arguments: object, **options: object) -> None:
        pytest.fail("something was unpickled")

    for place in ("torch.load", "pickle.load", "pickle.loads", "torch.export.load", "torch._C._pickle_load_obj"):
        monkeypatch.setattr(place, refuse)
    file = rewritten(residual, tmp_path / "bomb.pt2", {SAMPLES: pickle.dumps(Bomb())})
    model, images = user_model("residual")
    assert torch.equal(load_program(file)(images), model(images))


def test_a_tensor_that_is_stored_as_a_pickle_is_refused(residual: Path, tmp_path: Path) -> None:
    def spoil(config: Any) -> None:
        config["config"]["first.weight"]["use_pickle"] = True

    line = refusal(changed(residual, tmp_path / "net.pt2", WEIGHTS, spoil))
    assert "first.weight is stored as a pickle" in line


def test_a_newer_schema_is_named_with_the_torch_that_wrote_it(residual: Path, tmp_path: Path) -> None:
    def renew(program: Any) -> None:
        program["schema_version"]["major"], program["torch_version"] = 9, "3.1.0"

    line = refusal(changed(residual, tmp_path / "net.pt2", MODEL, renew))
    assert "newer schema 9 (written by torch 3.1.0); ftnas reads schema 8" in line


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({"archive_version": b"7"}, "is an archive of version '7'; ftnas reads '0'"),
        ({"archive_format": None}, "it has no archive_format"),
        ({MODEL: None}, "holds 0 programs"),
        ({MODEL: b"{}"}, "is damaged"),
        ({MODEL: b"[1, 2"}, "is not JSON"),
        ({"data/weights/weight_0": b"1234"}, "is damaged"),
        ({"data/weights/weight_0": None}, "it has no data/weights/weight_0"),
        ({"byteorder": b"big"}, "big-endian"),
    ],
)
def test_an_archive_with_a_wrong_record_is_named(
    records: dict[str, bytes | None], words: str, residual: Path, tmp_path: Path
) -> None:
    assert words in refusal(rewritten(residual, tmp_path / "net.pt2", records))


def test_a_compressed_archive_is_refused(residual: Path, tmp_path: Path) -> None:
    assert "is compressed" in refusal(rewritten(residual, tmp_path / "net.pt2", {}, packed=True))


@given(kept=st.floats(0, 0.999))
def test_a_truncated_file_is_refused_wherever_it_ends(kept: float, residual: Path, tmp_path_factory: Any) -> None:
    content = residual.read_bytes()
    file = tmp_path_factory.mktemp("cut") / "net.pt2"
    file.write_bytes(content[: int(kept * len(content))])
    assert "is truncated or not a file of torch.export.save" in refusal(file)


@given(data=st.data())
def test_a_damaged_byte_never_ends_in_anything_but_a_net_or_one_line(
    data: st.DataObject, residual: Path, tmp_path_factory: Any
) -> None:
    content = bytearray(residual.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    file = tmp_path_factory.mktemp("bits") / "net.pt2"
    file.write_bytes(content)
    try:
        load_program(file)
    except ModelError as error:
        assert str(error).startswith(f"{file}: ") and "\n" not in str(error)


@given(data=st.data())
def test_a_damaged_program_never_ends_in_anything_but_a_net_or_one_line(
    data: st.DataObject, residual: Path, tmp_path_factory: Any
) -> None:
    with zipfile.ZipFile(residual) as archive:
        text = bytearray(archive.read(f"residual/{MODEL}"))
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.sampled_from(b'0123456789-",:{}[]._aN'))
    file = rewritten(residual, tmp_path_factory.mktemp("json") / "net.pt2", {MODEL: bytes(text)})
    try:
        load_program(file)
    except ModelError as error:
        assert str(error).startswith(f"{file}: ") and "\n" not in str(error)


def test_weights_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    model, images = user_model("residual")
    with torch.no_grad():
        model.get_parameter("second.bias")[1] = torch.nan
    line = refusal(save(model, images[:2], tmp_path / "net.pt2"))
    assert "second.bias holds values that are infinite or not a number" in line


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 8).round() / 8


class Around(nn.Module):
    """``inner`` between two layers."""

    def __init__(self, inner: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.inner = inner
        self.gain = nn.Parameter(torch.ones(4, 1, 1))
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.inner(self.first(x)).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        (lambda: nn.Upsample(scale_factor=2), ["aten.upsample_nearest2d.vec (upsample_nearest2d in inner)"]),
        (lambda: nn.LayerNorm([6, 6]), ["aten.layer_norm.default (layer_norm in inner)", "cannot read and quantise"]),
        (lambda: Rounded(), ["aten.round.default (round_1 in inner)", "is quantised already; give the float net"]),
        (lambda: nn.PReLU(), ["aten.prelu.default (prelu in inner)"]),
        (lambda: nn.ConvTranspose2d(4, 4, 3), ["aten.conv_transpose2d.input (conv_transpose2d in inner)"]),
    ],
)
def test_an_operation_that_cannot_be_read_is_named_with_its_layer(
    inner: Callable[[], nn.Module], words: list[str], tmp_path: Path
) -> None:
    line = refusal(save(Around(inner()).eval(), torch.randn(2, 3, 8, 8), tmp_path / "net.pt2"))
    assert [word for word in words if word not in line] == []


class Scaled(Around):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc((self.first(x) * self.gain).mean((2, 3)))
        return logits


def test_a_parameter_outside_of_layers_is_named(tmp_path: Path) -> None:
    file = save(Scaled(nn.Identity()).eval(), torch.randn(2, 3, 8, 8), tmp_path / "net.pt2")
    assert "aten.mul.Tensor (mul): reads the parameter gain" in refusal(file)


def test_a_program_in_training_mode_is_refused(tmp_path: Path) -> None:
    model, images = user_model("residual")
    assert "batch norm is in training mode; call model.eval()" in refusal(
        save(model.train(), images[:2], tmp_path / "net.pt2")
    )


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "absent.pt2")
    (tmp_path / "text.pt2").write_text("hello")
    assert "is truncated or not a file of torch.export.save" in refusal(tmp_path / "text.pt2")
