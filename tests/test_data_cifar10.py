"""CIFAR-10 from folders and archives, whole, damaged and hostile, made here with a few rows a batch."""

import gzip
import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftnas.data import cifar10 as cifar10_room
from ftnas.data import load_data
from ftnas.data.cifar10 import ARCHIVE, BATCHES, FOLDER, TRAIN_BATCHES, read_cifar10
from ftnas.errors import DataError

ROWS = {name: 3 + number for number, name in enumerate(BATCHES)}


def content_of(name: str) -> dict[bytes, Any]:
    """The content of a fake batch: ``ROWS[name]`` images and as many labels."""
    rng = np.random.default_rng(BATCHES.index(name))
    rows = ROWS[name]
    return {
        b"batch_label": name.encode(),
        b"labels": rng.integers(0, 10, rows).tolist(),
        b"data": rng.integers(0, 256, (rows, 3072), dtype=np.uint8),
        b"filenames": [b"image.png"] * rows,
    }


def make_folder(parent: Path, **files: bytes) -> Path:
    """Write a fake CIFAR-10 folder below ``parent``; ``files`` replace batches byte for byte."""
    folder = parent / FOLDER
    folder.mkdir()
    for name in BATCHES:
        (folder / name).write_bytes(files.get(name, pickle.dumps(content_of(name), protocol=3)))
    return folder


def make_archive(parent: Path, folder: Path) -> Path:
    """Pack ``folder`` as the official archive is packed."""
    with tarfile.open(parent / ARCHIVE, "w:gz") as archive:
        archive.add(folder, arcname=FOLDER)
    return parent / ARCHIVE


def python2_pickle(content: dict[bytes, Any]) -> bytes:
    """Write ``content`` as Python 2 did: protocol 2, byte strings by BINSTRING, old NumPy names."""

    def put(value: Any) -> bytes:
        if isinstance(value, bytes):
            return b"T" + struct.pack("<i", len(value)) + value
        if isinstance(value, bool):
            return b"\x88" if value else b"\x89"
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, list):
            return b"](" + b"".join(map(put, value)) + b"e"
        if isinstance(value, np.ndarray):
            return put_array(value)
        pairs = b"".join(put(key) + put(entry) for key, entry in value.items())
        return b"}(" + pairs + b"u"

    def put_array(array: Any) -> bytes:
        kind = b"cnumpy\ndtype\n" + put(b"u1") + put(0) + put(1) + b"\x87R"
        kind += b"(" + put(3) + put(b"|") + b"NNN" + put(-1) + put(-1) + put(0) + b"tb"
        shape = b"(" + b"".join(put(length) for length in array.shape) + b"t"
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + put(0) + b"\x85" + put(b"b") + b"\x87R"
        return empty + b"(" + put(1) + shape + kind + put(False) + put(array.tobytes()) + b"tb"

    return b"\x80\x02" + put(content) + b"."


WRITERS: dict[str, Callable[[dict[bytes, Any]], bytes]] = {
    "Python 2": python2_pickle,
    **{f"protocol {p}": lambda content, p=p: pickle.dumps(content, protocol=p) for p in (0, 1, 2, 3, 4)},
    "text keys": lambda content: pickle.dumps({k.decode(): v for k, v in content.items()}, protocol=4),
    "array of labels": lambda content: pickle.dumps(content | {b"labels": np.array(content[b"labels"])}, protocol=3),
    "Fortran order": lambda content: pickle.dumps(content | {b"data": np.asfortranarray(content[b"data"])}, protocol=3),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_batch_reads_the_same_whoever_wrote_it(tmp_path: Path, writer: str) -> None:
    folder = make_folder(tmp_path, **{name: WRITERS[writer](content_of(name)) for name in BATCHES})
    pixels = read_cifar10(folder)
    images = np.concatenate([content_of(name)[b"data"] for name in TRAIN_BATCHES])
    assert np.array_equal(pixels.train_images, images.reshape(-1, 3, 32, 32))
    labels = [label for name in TRAIN_BATCHES for label in content_of(name)[b"labels"]]
    assert pixels.train_labels.tolist() == labels
    assert pixels.test_labels.tolist() == content_of("test_batch")[b"labels"]


def test_a_row_holds_the_red_plane_then_green_then_blue(tmp_path: Path) -> None:
    row = np.repeat(np.array([10, 20, 30], np.uint8), 1024)[None]
    batch = pickle.dumps({b"data": row, b"labels": [4]}, protocol=3)
    pixels = read_cifar10(make_folder(tmp_path, test_batch=batch))
    assert [np.unique(plane).tolist() for plane in pixels.test_images[0]] == [[10], [20], [30]]


PLACES: dict[str, Callable[[Path, Path], Path]] = {
    "the folder": lambda parent, folder: folder,
    "its parent": lambda parent, folder: parent,
    "a renamed folder": lambda parent, folder: folder.rename(parent / "renamed"),
    "the archive": make_archive,
    "the archive's folder": lambda parent, folder: _moved_archive(parent, folder).parent,
}


def _moved_archive(parent: Path, folder: Path) -> Path:
    (parent / "elsewhere").mkdir()
    return make_archive(parent, folder).rename(parent / "elsewhere" / ARCHIVE)


@pytest.mark.parametrize("place", PLACES)
def test_cifar10_is_found_from(tmp_path: Path, place: str) -> None:
    directory = PLACES[place](tmp_path, make_folder(tmp_path))
    dataset = load_data("cifar10", directory=directory)
    assert dataset.train_images.shape == (25, 3, 32, 32)
    assert dataset.test_images.shape == (8, 3, 32, 32)
    assert (dataset.classes, dataset.image_shape) == (10, (3, 32, 32))


def test_folder_and_archive_give_the_same_tensors(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    one, other = (load_data("cifar10", directory=p) for p in (folder, make_archive(tmp_path, folder)))
    assert torch.equal(one.train_images, other.train_images)
    assert torch.equal(one.test_labels, other.test_labels)


def test_reading_an_archive_writes_nothing(tmp_path: Path) -> None:
    archive = _moved_archive(tmp_path, make_folder(tmp_path))
    read_cifar10(archive)
    assert list(archive.parent.iterdir()) == [archive]


def refusal(directory: Path | None) -> str:
    """Return the one line by which ``directory`` is refused."""
    with pytest.raises(DataError) as caught:
        load_data("cifar10", directory=directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cifar10_needs_a_directory() -> None:
    assert refusal(None).startswith("cifar10: needs a directory (--data-dir DIR)")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no").startswith(f"{tmp_path / 'no'}: is missing")


def test_a_directory_without_cifar10_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: holds neither {FOLDER} nor {ARCHIVE}"


@pytest.mark.parametrize("name", BATCHES)
def test_a_missing_batch_is_named(tmp_path: Path, name: str) -> None:
    folder = make_folder(tmp_path)
    (folder / name).unlink()
    assert refusal(folder).startswith(f"{folder / name}: is missing")
    assert refusal(make_archive(tmp_path, folder)).endswith(f"{FOLDER}/{name} is missing from the archive")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_batch_is_named(tmp_path: Path, share: float) -> None:
    whole = pickle.dumps(content_of("data_batch_2"), protocol=3)
    folder = make_folder(tmp_path, data_batch_2=whole[: int(len(whole) * share)])
    assert refusal(folder).startswith(f"{folder / 'data_batch_2'}: is truncated")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_archive_is_named(tmp_path: Path, share: float) -> None:
    archive = make_archive(tmp_path, make_folder(tmp_path))
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
    assert refusal(archive).startswith(f"{archive}: is truncated or not a .tar.gz archive")


def test_an_archive_with_one_wrong_byte_of_an_image_is_named(tmp_path: Path) -> None:
    archive = make_archive(tmp_path, make_folder(tmp_path))
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    archive.write_bytes(content)
    assert refusal(archive).startswith(f"{archive}: is truncated or not a .tar.gz archive (CRC check failed")


def test_a_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("not an archive")
    assert refusal(other).startswith(f"{other}: is truncated or not a .tar.gz archive")


IMAGES = np.zeros((2, 3072), np.uint8)
WRONG: dict[str, tuple[Any, str]] = {
    "list": ([1], "a pickled dictionary is needed, found list"),
    "CIFAR-100": ({b"data": IMAGES, b"fine_labels": [0, 1]}, "key 'labels' is missing; found 'data', 'fine_labels'"),
    "text": ({b"data": b"x", b"labels": [0]}, "'data' must be a uint8 array, found bytes"),
    "float": ({b"data": IMAGES * 1.0, b"labels": [0, 1]}, "[rows, 3072], found float64 [2, 3072]"),
    "MNIST": ({b"data": IMAGES[:, :784], b"labels": [0, 1]}, "[rows, 3072], found uint8 [2, 784]"),
    "flat": ({b"data": IMAGES[0], b"labels": [0]}, "[rows, 3072], found uint8 [3072]"),
    "empty": ({b"data": IMAGES[:0], b"labels": []}, "[rows, 3072], found uint8 [0, 3072]"),
    "count": ({b"data": IMAGES, b"labels": [1]}, "1 labels for 2 images"),
    "too large": ({b"data": IMAGES, b"labels": [1, 10]}, "labels must be 0..9, found 10"),
    "negative": ({b"data": IMAGES, b"labels": [-1, 1]}, "labels must be 0..9, found -1"),
    "huge": ({b"data": IMAGES, b"labels": [10**9999, 1]}, "labels must be 0..9, found int"),
    "no integer": ({b"data": IMAGES, b"labels": [0.5, 1]}, "labels must be 0..9, found float"),
    "tuple": ({b"data": IMAGES, b"labels": (0, 1)}, "'labels' must be a list, found tuple"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_batch_is_one_line_that_names_file_and_reason(tmp_path: Path, case: str) -> None:
    content, reason = WRONG[case]
    folder = make_folder(tmp_path, data_batch_4=pickle.dumps(content, protocol=3))
    message = refusal(folder)
    assert message.startswith(f"{folder / 'data_batch_4'}: ")
    assert message.endswith(reason)


def test_a_hostile_pickle_inside_an_archive_names_archive_and_member(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    batch = b"cos\nmkdir\n(V" + str(trace).encode() + b"\ntR."
    archive = make_archive(tmp_path, make_folder(tmp_path, test_batch=batch))
    assert refusal(archive).startswith(f"{archive}: {FOLDER}/test_batch: refused to load 'os.mkdir'")
    assert not trace.exists()


def test_a_batch_too_large_for_cifar10_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path)
    archive = make_archive(tmp_path, folder)
    monkeypatch.setattr(cifar10_room, "LARGEST_BATCH", 1000)
    assert "a CIFAR-10 batch at most 1000" in refusal(folder)
    assert "a CIFAR-10 batch at most 1000" in refusal(archive)


def test_an_archive_that_unpacks_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / ARCHIVE
    header = tarfile.TarInfo("padding")
    header.size = 50 * 2**20
    with gzip.open(bomb, "wb", compresslevel=1) as packed:
        packed.write(header.tobuf())
        for _ in range(50):
            packed.write(bytes(2**20))
    monkeypatch.setattr(cifar10_room._LimitedGzip, "left", 2**20)
    assert refusal(bomb).startswith(f"{bomb}: unpacks to more than")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_a_member_that_is_no_file_counts_as_missing(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / ARCHIVE, "w:gz") as archive:
        member = tarfile.TarInfo(f"{FOLDER}/data_batch_1")
        member.type, member.linkname = kind, "/etc/hostname"
        archive.addfile(member)
    assert "data_batch_1 is missing from the archive" in refusal(tmp_path / ARCHIVE)


def test_a_member_above_the_archives_root_is_never_written(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    make_folder(tmp_path)
    with tarfile.open(inner / ARCHIVE, "w:gz") as archive:
        escape = tarfile.TarInfo("../escaped")
        escape.size = 3
        archive.addfile(escape, io.BytesIO(b"abc"))
        archive.add(tmp_path / FOLDER, arcname=f"./{FOLDER}")
    assert len(read_cifar10(inner).test_labels) == 8
    assert not (tmp_path / "escaped").exists()
