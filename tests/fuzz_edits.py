"""Edits of valid files: plain numbers that hypothesis draws and shrinks, and what they do to each format."""

from __future__ import annotations

import copy
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import yaml
from hypothesis import strategies as st

from ftnas.campaign.records import encoded


class Edit(NamedTuple):
    """One change: which kind, where, and with what; every number means something in every format."""

    kind: int
    place: int
    what: int


Codec = Callable[[bytes, Sequence[Edit]], bytes]

edits = st.lists(
    st.builds(Edit, st.integers(0, 63), st.integers(0, 2**20), st.integers(0, 2**20)), min_size=1, max_size=4
)


def deep(levels: int) -> Any:
    """Return lists within lists."""
    found: Any = []
    for _ in range(levels):
        found = [found]
    return found


# What stands where something else is expected.
NASTY: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 255, 2**31, 2**32 - 1, 2**63, -(2**63), 10**30, 10**400, 0.0, -0.5, 1.5, 1e-320,
    1e308, float("nan"), float("inf"), -float("inf"), "", "0", "1e999", "none", "..", "../../x", "/etc/passwd", "a\nb",
    "\x1b[2J", "\ud800", "\x00", "[/bold]", "<script>", "x" * 5000, "9" * 5000, [], {}, [[]], [{}], {"": 0}, [0],
    [1, 2, 3], ["x"], [1, "x", None], {"key": {"key": []}}, [1.5] * 300, [-1, 0], [10**9, 10**9], [2**40, 3, 8, 8],
    deep(40), deep(150),
)  # fmt: skip

CHUNKS: tuple[bytes, ...] = (
    b"\x00", b"\xff" * 8, b"{", b"}", b"[", b"]", b'"', b",", b":", b"\n", b"\\u0000", b"NaN", b"-Infinity", b"1e400",
    b"9" * 5000, b"[" * 100_000, b"{" * 300, b'{"a":' * 3000, b"null", b"!!python/object/apply:os.system [id]",
    b"&a [*a]", b"*a", b"<<: *a", b"? ", b"- " * 500, b"2001-99-99", b"1:1:1:1", b"!!binary x", b"!!timestamp x",
    b"\xef\xbb\xbf", b"\xc3\x28", b"%YAML 9.9", b"--- ", b"\t", b"../", b"\x80\x04\x95", b"cos\nsystem\n",
    b"PK\x03\x04", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"(((", b":", b"::", b"=", b"1e-400", b"0x10", b"_",
    b"\xe2\x80\xae", b"a" * 20000,
)  # fmt: skip


def bytes_edited(content: bytes, changes: Sequence[Edit]) -> bytes:
    """Flip, cut, insert, repeat and overwrite bytes."""
    found = bytearray(content)
    for kind, place, what in changes:
        at = place % (len(found) + 1)
        operation = kind % 8
        if operation == 0 and at < len(found):
            found[at] ^= 1 << what % 8
        elif operation == 1:
            del found[at:]
        elif operation == 2:
            del found[at : at + 1 + what % 64]
        elif operation == 3:
            found[at:at] = CHUNKS[what % len(CHUNKS)]
        elif operation == 4:
            found[at:at] = found[at : at + 1 + what % 512]
        elif operation == 5:
            word = struct.pack("<Q", (2**63, 2**40, 2**32 - 1, 2**31 - 1, 0, 2**64 - 1)[what % 6])
            size = (2, 4, 8)[what // 6 % 3]
            found[at : at + size] = word[:size]
        elif operation == 6 and at < len(found):
            found[at] = what % 256
        else:
            end = what % (len(found) + 1)
            found[at:at] = found[min(at, end) : max(at, end)][:4096]
    return bytes(found)


def tree_edited(tree: Any, changes: Sequence[Edit]) -> Any:
    """Replace, drop, add, rename and swap parts of plain data."""
    tree = copy.deepcopy(tree)
    for kind, place, what in changes:
        places = list(_places(tree))
        if not places:
            return NASTY[what % len(NASTY)]
        parent, key = places[place % len(places)]
        other_parent, other_key = places[what % len(places)]
        operation = kind % 6
        if operation in (0, 1):
            parent[key] = copy.deepcopy(NASTY[what % len(NASTY)])
        elif operation == 2:
            del parent[key]
        elif operation == 3:
            parent[key] = copy.deepcopy(other_parent[other_key])
        elif operation == 4 and isinstance(parent, dict):
            parent[str(NASTY[what % len(NASTY)])[:200]] = parent.pop(key)
        elif isinstance(parent, list):
            parent.extend(copy.deepcopy(parent[key : key + 1]) * (what % 6))
        else:
            parent[key] = {"key": parent[key], "x": [parent[key]]}
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of everything inside ``tree``, without recursion."""
    waiting = [tree]
    while waiting:
        here = waiting.pop()
        for key in here if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else ():
            yield here, key
            waiting.append(here[key])


def dumped(tree: Any) -> bytes:
    try:
        return json.dumps(tree).encode()
    except (RecursionError, ValueError):  # numbers and lists that no writer writes
        return b"[" * 3000 + b"9" * 5000


def json_edited(content: bytes, changes: Sequence[Edit]) -> bytes:
    """Change the data, then, by the kind of the last edit, the text."""
    try:
        tree = json.loads(content)
    except ValueError:  # an edit before this one left none
        return bytes_edited(content, changes)
    text = dumped(tree_edited(tree, changes))
    last = changes[-1]
    if last.kind % 4 == 3:
        return bytes_edited(text, changes[-1:])
    return text.replace(b"{", b'{"schema": 7, ', 1) if last.kind % 16 == 6 else text


def yaml_edited(content: bytes, changes: Sequence[Edit]) -> bytes:
    """Change the data, or the text with all that YAML knows."""
    if changes[-1].kind % 2:
        return bytes_edited(content, changes)
    tree = tree_edited(yaml.safe_load(content), changes)
    try:
        return yaml.safe_dump(tree, sort_keys=False).encode("utf-8", "surrogatepass")
    except (RecursionError, ValueError, yaml.YAMLError):
        return dumped(tree)


def lines_edited(content: bytes, changes: Sequence[Edit]) -> bytes:
    """Change one line of JSON."""
    lines = content.splitlines(keepends=True)
    at = changes[0].place % len(lines)
    if changes[-1].kind % 3 == 0:
        return bytes_edited(content, changes)
    lines[at] = dumped(tree_edited(json.loads(lines[at]), changes)) + b"\n"
    return b"".join(lines)


def journal_edited(content: bytes, changes: Sequence[Edit]) -> bytes:
    """Change one line; in half of the cases as in a journal of an older ftnas, which had no checksums."""
    if changes[-1].what % 2:
        content = b"".join(line for line in content.splitlines(keepends=True) if b'"crc32"' not in line)
    return lines_edited(content, changes)


def records_edited(content: bytes, changes: Sequence[Edit]) -> bytes:
    """Change one line, and give it the checksum that it then needs."""
    lines = content.splitlines(keepends=True)
    at = changes[0].place % len(lines)
    if changes[-1].kind % 3 == 0:
        return bytes_edited(content, changes)
    tree = json.loads(lines[at])
    tree.pop("crc32")
    try:
        body = tree_edited(tree, changes)
        lines[at] = encoded(body)
    except (RecursionError, ValueError, AttributeError):
        body = dumped(tree)
        lines[at] = body[:-1] + b',"crc32":"' + f"{zlib.crc32(body):08x}".encode() + b'"}\n'
    return b"".join(lines)


def csv_edited(content: bytes, changes: Sequence[Edit]) -> bytes:
    """Change bytes, or a cell."""
    if changes[-1].kind % 3 == 0:
        return bytes_edited(content, changes)
    rows = [line.split(b",") for line in content.splitlines()]
    for _, place, what in changes:
        row = rows[place % len(rows)]
        row[place // 7 % len(row)] = str(NASTY[what % len(NASTY)]).encode("utf-8", "replace")
    return b"\n".join(b",".join(row) for row in rows)
