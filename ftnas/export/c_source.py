"""The source of a C program that computes an integer net: tables, one call for each step, a main function."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files

from ftnas.export.c_calls import Call, Place, as_map, calls_of
from ftnas.export.c_memory import plan_memory
from ftnas.export.c_protection import protection_tables
from ftnas.export.graph import INPUT, Convolve, Multiply
from ftnas.export.integer import IntegerNet, IntegerNode, Rescale

# What of inference.c a function needs beside itself.
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "convolve": ("rescaled", "weight"),
    "multiply": ("rescaled", "weight"),
    "rescale_values": ("rescaled",),
    "halve_values": ("floor_half",),
    "merge_values": ("floor_half",),
}

_NUMBERS_IN_A_LINE: Mapping[str, int] = {"int8_t": 20, "uint8_t": 25, "int16_t": 14, "int32_t": 9, "int64_t": 5}


def c_name(name: str) -> str:
    """Return ``name`` as a C identifier in lower case, which may also name a file beside ``main.c``."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_").lower() or "net"
    return plain if plain[0].isalpha() and plain != "main" else f"net_{plain}"


def c_sources(net: IntegerNet) -> dict[str, str]:
    """Return the text of each file by its name: ``NAME.h``, ``NAME.c`` and ``main.c``.

    Raises:
        ExportError: the net has maps of more than two dimensions.
    """
    name = c_name(net.name)
    shapes = {INPUT: net.input_shape} | {node.name: node.shape for node in net.nodes}
    place = Place(name, plan_memory(net), shapes)
    convolutions = [node for node in net.nodes if isinstance(node.operation, Convolve)]
    words = {
        "NAME": name.upper(),
        "name": name,
        "shape": "x".join(map(str, net.input_shape)),
        "pixels": str(math.prod(net.input_shape)),
        "classes": str(math.prod(shapes[net.output])),
        "input_scale": repr(net.input_scale),
        "logit_scale": repr(net.scale),
        "facts": "".join(_fact(key, value) for key, value in net.facts.items()),
        "memory_bytes": f"{4 * place.memory.size:,}",
        "table_bytes": f"{table_bytes(net):,}",
        "tables": "\n".join(table for node in net.nodes for table in _tables(name, node)),
        "longest_row": str(max((as_map(node.shape, node)[2] for node in convolutions), default=1)),
        "memory": str(place.memory.size),
        "image": place.at(INPUT),
        "logits": place.at(net.output),
        **_steps(place, net),
    }
    return {
        f"{name}.h": _filled(_HEADER, words),
        f"{name}.c": _filled(_PROGRAM, words),
        "main.c": _filled(_MAIN, words),
    }


def _fact(key: str, value: str) -> str:
    """Return a line of a comment, which must not end it."""
    return f" * {key}: {value}\n".replace("*/", "* /")


def _filled(text: str, words: Mapping[str, str]) -> str:
    """Return ``text`` with each ``@word@`` replaced."""
    return re.sub(r"@(\w+)@", lambda found: words[found[1]], text)


def _steps(place: Place, net: IntegerNet) -> dict[str, str]:
    """Return the calls of the program, and the functions that they need."""
    calls = {node: list(calls_of(place, node)) for node in net.nodes}
    lines = [line for node, its_calls in calls.items() for line in _lines(node, its_calls)]
    called = {call.function for its_calls in calls.values() for call in its_calls}
    return {"steps": "\n".join(lines), "functions": _functions(called)}


def _lines(node: IntegerNode, calls: Iterable[Call]) -> Iterator[str]:
    yield f"    /* {node.name}: {'x'.join(map(str, node.shape))} */"
    for call in calls:
        lines = [f"    {call.function}("]
        for argument, end in zip(call.arguments, [", "] * (len(call.arguments) - 1) + [");"], strict=True):
            if len(lines[-1] + argument + end) > 120:
                lines.append(" " * 8)
            lines[-1] += argument + end
        yield from (line.rstrip() for line in lines)


def _functions(called: Iterable[str]) -> str:
    """Return the parts of inference.c that ``called`` functions need, in its order: others would be warned of."""
    text = (files("ftnas.export") / "inference.c").read_text(encoding="utf-8")
    _, *parts = re.split(r"^/\*@(\w+)\*/\n", text, flags=re.MULTILINE)
    needed = {"head", *called}.union(*(_NEEDS.get(name, ()) for name in called))
    return "".join(part for name, part in zip(parts[::2], parts[1::2], strict=True) if name in needed)


def table_bytes(net: IntegerNet) -> int:
    """Return how many bytes the tables take."""
    steps = [step for node in net.nodes if (step := _rescale_of(node)) is not None]
    layers = [node.operation.weight for node in net.nodes if isinstance(node.operation, Convolve | Multiply)]
    channels = sum(4 * len(numbers) for node in net.nodes for _, _, numbers in protection_tables("", node.operation))
    weights = channels + sum(weight.codes.size * (1 if weight.number.bits <= 8 else 2) for weight in layers)
    return weights + sum(len(step.multiplier) * (4 + 8 + 1) for step in steps)


def _rescale_of(node: IntegerNode) -> Rescale | None:
    return node.operation if isinstance(node.operation, Rescale) else node.rescale


def _tables(prefix: str, node: IntegerNode) -> Iterator[str]:
    """Return the integers of ``node``."""
    table, operation = f"{prefix}_{node.name}", node.operation
    if isinstance(operation, Convolve | Multiply):
        weight = operation.weight
        shape = "x".join(map(str, weight.codes.shape))
        yield f"/* {node.name}: weight {shape}, {weight.number}; a result of 1 is {node.scale!r}. */"
        kind = "int8_t" if weight.number.bits <= 8 else "int16_t"
        yield _table(kind, f"{table}_weight", weight.codes.ravel().tolist())
    for kind, name, numbers in protection_tables(table, operation):
        yield _table(kind, name, numbers)
    step = _rescale_of(node)
    if step is not None:
        if step is operation:
            yield f"/* {node.name}: to another grid; a result of 1 is {node.scale!r}. */"
        yield _table("int32_t", f"{table}_multiplier", step.multiplier.tolist())
        yield _table("int64_t", f"{table}_addend", step.addend.tolist())
        yield _table("uint8_t", f"{table}_shift", step.shift.tolist())


def _table(kind: str, name: str, numbers: list[int]) -> str:
    width = _NUMBERS_IN_A_LINE[kind]
    rows = [", ".join(map(str, numbers[start : start + width])) for start in range(0, len(numbers), width)]
    return f"static const {kind} {name}[{len(numbers)}] = {{\n    " + ",\n    ".join(rows) + "\n};"


_HEADER = """\
/*
 * @name@: a quantised net as integer tables, written by ftnas. @name@.c computes it, main.c shows how to call that.
 *
@facts@ *
 * An image is @shape@ codes, channel by channel, row by row: code = round(pixel / @NAME@_INPUT_SCALE), with the pixel
 * as the net was trained on it. A logit is its code times @NAME@_LOGIT_SCALE. Tables take @table_bytes@ bytes, values
 * @memory_bytes@.
 */
#ifndef @NAME@_H
#define @NAME@_H

#include <stdint.h>

#define @NAME@_PIXELS @pixels@
#define @NAME@_CLASSES @classes@
#define @NAME@_INPUT_SCALE @input_scale@
#define @NAME@_LOGIT_SCALE @logit_scale@

void @name@_run(const int16_t image[@NAME@_PIXELS], int32_t logits[@NAME@_CLASSES]);

#ifdef @NAME@_TABLES
@tables@
#endif

#endif
"""

_PROGRAM = """\
#define LONGEST_ROW @longest_row@

@functions@
#define @NAME@_TABLES
#include "@name@.h"

void @name@_run(const int16_t image[@NAME@_PIXELS], int32_t logits[@NAME@_CLASSES])
{
    /* Values that are never needed together share a place. */
    static int32_t memory[@memory@];
    for (int i = 0; i < @NAME@_PIXELS; i++)
        (@image@)[i] = image[i];
@steps@
    for (int i = 0; i < @NAME@_CLASSES; i++)
        logits[i] = (@logits@)[i];
}
"""

_MAIN = """\
/*
 * Reads images of @NAME@_PIXELS 16-bit codes each, in the machine's own byte order, and prints a line of logits each.
 *
 *     cc -std=c99 -O2 -o @name@ main.c @name@.c
 *     ./@name@ < images.bin
 */
#include <stdint.h>
#include <stdio.h>

#include "@name@.h"

int main(void)
{
    int16_t image[@NAME@_PIXELS];
    int32_t logits[@NAME@_CLASSES];
    size_t count;
    while ((count = fread(image, sizeof image[0], @NAME@_PIXELS, stdin)) == @NAME@_PIXELS) {
        @name@_run(image, logits);
        for (int i = 0; i < @NAME@_CLASSES; i++)
            printf("%ld%c", (long)logits[i], i + 1 < @NAME@_CLASSES ? ' ' : '\\n');
    }
    if (count > 0 || ferror(stdin)) {
        fprintf(stderr, "the last image is cut short\\n");
        return 1;
    }
    return 0;
}
"""
