"""Look through the graph of an ONNX file before ONNX Runtime opens it, which has no limits and cannot be interrupted.

Only as much of protobuf is read as says how many parts a graph has and which operations: the package `onnx` need not be
installed. Numbers of messages and fields are those of `onnx.proto`.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from semicdvl.errors import CheckpointError
from semicdvl.reading.limits import MAX_GRAPH_NESTING, MAX_GRAPH_PARTS

Span = tuple[int, int]
"""First byte of a message, and the byte behind it."""
MODEL_GRAPH, MODEL_FUNCTIONS, GRAPH_NODE = 7, 25, 1
NODE_OPERATION, NODE_ATTRIBUTE, ATTRIBUTE_GRAPHS = 4, 5, (6, 11)
LOOPS = (b"Loop", b"Scan")
FIXED_BYTES = {1: 8, 5: 4}
"""Length of the wire types of a fixed one."""
VARINT, LENGTH_DELIMITED = 0, 2
MAX_VARINT_BYTES, MAX_TAG = 10, 2**32 - 1


class _DamagedError(ValueError):
    """The bytes are no message of protobuf."""


def check_onnx_graph(path: Path) -> None:
    """Refuse a file whose graph may take for ever to open.

    A loop need not end, functions may call each other a million times over, and ONNX Runtime takes minutes for graphs
    of some hundred thousand parts. `semicdvl export` writes none of these.

    Raises:
        CheckpointError: it holds one of these, or is damaged.
    """
    if not path.stat().st_size:
        return  # ONNX Runtime says what is wrong with it
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            fault = _find_fault(content)
        except _DamagedError as error:
            raise CheckpointError(f"{path}: cannot be read as ONNX ({error}). Export it again.") from None
    if fault:
        raise CheckpointError(f"{path}: its network {fault}. Give a file that `semicdvl export` wrote.")


def _find_fault(content: mmap.mmap) -> str | None:
    """Return what is wrong with the graph of a model; None if nothing is."""
    parts = 0
    waiting: list[tuple[Span, int]] = []
    for number, span in _list_messages(content, (0, len(content))):
        if number == MODEL_FUNCTIONS:
            return "has functions of its own"
        if number == MODEL_GRAPH:
            waiting.append((span, 1))
    while waiting:
        graph, depth = waiting.pop()
        for number, span in _list_messages(content, graph):
            parts += 1
            if parts > MAX_GRAPH_PARTS:
                return f"has more than {MAX_GRAPH_PARTS:,} parts"
            if number == GRAPH_NODE:
                operation, inner = _read_node(content, span)
                if operation in LOOPS:
                    return f"holds a loop ({operation.decode()}), which may never end"
                waiting += [(each, depth + 1) for each in inner]
        if depth > MAX_GRAPH_NESTING:
            return f"has graphs within graphs, more than {MAX_GRAPH_NESTING} deep"
    return None


def _read_node(content: mmap.mmap, node: Span) -> tuple[bytes, list[Span]]:
    """Return the operation of a node, and the graphs among its attributes."""
    operation, graphs = b"", []
    for number, (start, end) in _list_messages(content, node):
        if number == NODE_OPERATION:
            operation = content[start:end]
        elif number == NODE_ATTRIBUTE:
            graphs += [span for kind, span in _list_messages(content, (start, end)) if kind in ATTRIBUTE_GRAPHS]
    return operation, graphs


def _list_messages(content: mmap.mmap, span: Span) -> Iterator[tuple[int, Span]]:
    """Yield the number and place of each field of a message that has a length: messages, texts, arrays.

    Raises:
        _DamagedError: the message does not end where it should, or has fields that no version of protobuf writes now.
    """
    at, end = span
    while at < end:
        begin = at
        tag, at = _read_varint(content, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            _, at = _read_varint(content, at, end)
        elif wire in FIXED_BYTES:
            at += FIXED_BYTES[wire]
        elif wire == LENGTH_DELIMITED and tag <= MAX_TAG:  # other readers take the last 32 bits of a larger one
            length, at = _read_varint(content, at, end)
            if length > end - at:
                raise _DamagedError(f"a field at byte {begin:,} is longer than what holds it")
            yield number, (at, at + length)
            at += length
        else:
            raise _DamagedError(f"no field begins at byte {begin:,}")
    if at != end:
        raise _DamagedError(f"it ends within a field at byte {at:,}")


def _read_varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """Return a whole number of protobuf, seven bits a byte, and the place behind it."""
    value = 0
    for shift in range(MAX_VARINT_BYTES):
        if at + shift >= end:
            break
        byte = content[at + shift]
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    raise _DamagedError(f"no number begins at byte {at:,}")
