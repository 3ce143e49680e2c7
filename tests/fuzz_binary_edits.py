"""Edits of binary files: changed bytes, and changed contents with all around them made right again."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

from fuzz_edits import Edit, bytes_edited, dumped, json_edited, tree_edited


def safetensors_edited(content: bytes, changes: Sequence[Edit]) -> bytes:
    """Change bytes, the header's data, or the data of ftnas within it."""
    way = changes[-1].kind % 4
    (size,) = struct.unpack("<Q", content[:8])
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    if way == 0:
        return bytes_edited(content, changes)
    inner = json.loads(header["__metadata__"]["ftnas"])
    inner.pop("sha256", None)  # anybody can compute a digest; a file without one is read
    header["__metadata__"]["ftnas"] = json.dumps(inner)
    if way == 1:
        header["__metadata__"]["ftnas"] = dumped(tree_edited(inner, changes)).decode()
    elif way == 2:
        rest = bytes_edited(rest, [change._replace(kind=(0, 5, 6)[change.kind % 3]) for change in changes])
    else:
        header = tree_edited(header, changes)
    text = dumped(header)
    return struct.pack("<Q", len(text)) + text + rest


def zip_edited(content: bytes, changes: Sequence[Edit]) -> bytes:
    """Change bytes, or one record: its content, its name or how it is packed."""
    if changes[-1].kind % 4 == 0:
        return bytes_edited(content, changes)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        infos = old.infolist()
        chosen = infos[changes[0].place % len(infos)].filename
        for info in infos:
            record, kind, name = old.read(info), info.compress_type, info.filename
            if name == chosen:
                record, kind, name = _record_edited(record, kind, name, changes)
            new.writestr(zipfile.ZipInfo(name), record, compress_type=kind)
    return made.getvalue()


def _record_edited(record: bytes, kind: int, name: str, changes: Sequence[Edit]) -> tuple[bytes, int, str]:
    way, what = changes[-1].kind % 8, changes[-1].what
    if way == 1:
        return record, kind, ("../../x", "/etc/passwd", "x/" * 200, name + "x")[what % 4]
    if way == 2:
        return bytes(min(what * 64, 2**22)), zipfile.ZIP_DEFLATED, name
    if name.endswith(".json"):
        return json_edited(record, changes), kind, name
    if record.startswith(b"\x93NUMPY"):
        return npy_edited(record, changes), kind, name
    return bytes_edited(record, changes), kind, name


_SHAPES = (
    "(1000000000000,)",
    "(2, 2147483648, 8)",
    "(0,)",
    "(-1, 8, 8)",
    "(1, 1, 1, 1, 1)",
    "()",
    "(3.5,)",
    "(99,) * 99",
)
_TYPES = ("'|O'", "'<f8'", "'|u1'", "'<i8'", "'|S5'", "'<M8[s]'", "[('a', '<f8')]", "'<c16'", "'|b1'", "'<f2'", "'|V9'")


def npy_edited(record: bytes, changes: Sequence[Edit]) -> bytes:
    """Change an array's bytes, or the shape and type that its header claims."""
    way, what = changes[0].kind % 3, changes[0].what
    if way == 0:
        return bytes_edited(record, changes)
    (size,) = struct.unpack("<H", record[8:10])
    shape = _SHAPES[what % len(_SHAPES)] if way == 1 else "(6, 8, 8)"
    kind = _TYPES[what // 8 % len(_TYPES)] if way == 2 else "'|u1'"
    header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return record[:8] + struct.pack("<H", len(header)) + header + record[10 + size :]


def png_edited(content: bytes, changes: Sequence[Edit]) -> bytes:
    """Change bytes, or the data of a PNG's chunk, whose checksum is made right again."""
    if changes[-1].kind % 3 == 0 or not content.startswith(b"\x89PNG"):
        return bytes_edited(content, changes)
    chunks, at = [], 8
    while at + 12 <= len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    chosen = changes[0].place % len(chunks)
    kind, data = chunks[chosen]
    if kind == b"IHDR" and changes[0].kind % 2:
        sides = (0, 1, 8, 9, 3000, 20_000, 2**31 - 1, 2**31)
        data = struct.pack(">II", sides[changes[0].what % 8], sides[changes[0].what // 8 % 8]) + data[8:]
    else:
        data = bytes_edited(data, changes)
    chunks[chosen] = (kind, data)
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def onnx_edited(content: bytes, changes: Sequence[Edit]) -> bytes:
    """Change bytes, or the model as plain data."""
    import onnx
    from google.protobuf import json_format

    if changes[-1].kind % 2:
        return bytes_edited(content, changes)
    tree = json_format.MessageToDict(onnx.load_from_string(content), preserving_proto_field_name=True)
    try:
        made: bytes = json_format.ParseDict(tree_edited(tree, changes), onnx.ModelProto()).SerializeToString()
        return made
    except Exception:  # no model any more: whatever the parser says of it
        return bytes_edited(content, changes)


def hdf5_edited(content: bytes, changes: Sequence[Edit]) -> bytes:
    """Change bytes, or a group's members: other values, sizes, links that lead out of the file."""
    import h5py

    if changes[-1].kind % 2:
        return bytes_edited(content, changes)
    made = io.BytesIO(content)
    with h5py.File(made, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for kind, place, what in changes:
            _hdf5_member_edited(h5py, file, names[place % len(names)], kind % 8, what)
    return made.getvalue()


def _hdf5_member_edited(h5py: Any, file: Any, name: str, way: int, what: int) -> None:
    try:
        member = file[name]
    except (KeyError, RuntimeError):  # gone, or a link by now
        return
    if isinstance(member, h5py.Dataset) and name.endswith("/ftnas") and way < 6:
        text, change = member[()], [Edit(way, what, what)]
        del file[name]
        edited = json_edited(text, change) if text.startswith(b'{"') else bytes_edited(text, change)
        file[name] = edited.decode("utf-8", "replace").replace("\0", "")
        return
    del file[name]
    if way == 1:
        file[name] = h5py.ExternalLink("/etc/passwd", "/")
    elif way == 2:
        file[name] = h5py.SoftLink(("/", f"/{name}", "/node")[what % 3])
    elif way == 3:
        shape = ((2**40,), (2**20, 2**14), (0,), (1,) * 20)[what % 4]
        file.create_dataset(name, shape, "f4", chunks=(1,) * len(shape), maxshape=(None,) * len(shape))
    elif way == 4:
        file[name] = (b"LIF", b"IF", b"Conv2d", b"Affine", b"Nothing", "text", 0, -1, [1, 2], float("nan"))[what % 10]
    elif way == 5:
        file.create_dataset(name, (8,), "u1", external=[("/etc/passwd", 0, 8)])
    elif way == 6:
        file.create_group(name)
