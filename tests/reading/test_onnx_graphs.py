"""What is refused before ONNX Runtime opens a file, however its bytes are written."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from semicdvl.errors import CheckpointError
from semicdvl.reading import onnx_graphs
from semicdvl.reading.limits import MAX_GRAPH_PARTS
from semicdvl.reading.onnx_graphs import check_onnx_graph


def build_model(*nodes: onnx.NodeProto, tensors: int = 0) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    numbers = [helper.make_tensor(str(at), TensorProto.FLOAT, [1], [1.0]) for at in range(tensors)]
    return helper.make_model(helper.make_graph(nodes, "graph", values[:1], values[1:], numbers))


def nest(operation: str, *, depth: int) -> onnx.NodeProto:
    """Return a node within the branches of so many others."""
    node = helper.make_node(operation, ["x"], ["y"])
    for _ in range(depth):
        node = helper.make_node("If", ["x"], ["y"], then_branch=helper.make_graph([node], "branch", [], []))
    return node


def check(content: bytes, folder: Path) -> None:
    path = folder / "x.onnx"
    path.write_bytes(content)
    check_onnx_graph(path)


def write_varint(value: int, *, extra: int = 0) -> bytes:
    """Write a number of protobuf with as many bytes more than it needs."""
    groups = [value >> 7 * at & 0x7F for at in range(max(1, -(-value.bit_length() // 7)) + extra)]
    return bytes([group | 0x80 for group in groups[:-1]] + [groups[-1]])


def test_a_usual_graph_passes(tmp_path: Path) -> None:
    check(build_model(nest("Relu", depth=3), tensors=100).SerializeToString(), tmp_path)


@pytest.mark.parametrize("operation", ["Loop", "Scan"])
@pytest.mark.parametrize("depth", [0, 1, 7])
def test_loops_are_found_at_any_depth(operation: str, depth: int, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=rf"x\.onnx: its network holds a loop \({operation}\), which may never end"
    ):
        check(build_model(nest(operation, depth=depth)).SerializeToString(), tmp_path)


def test_graphs_within_graphs_have_a_limit(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has graphs within graphs, more than 8 deep"):
        check(build_model(nest("Relu", depth=9)).SerializeToString(), tmp_path)


def test_parts_of_all_graphs_are_counted_together(tmp_path: Path) -> None:
    names = 3  # the graph's own, and those of its two values
    check(build_model(tensors=MAX_GRAPH_PARTS - names).SerializeToString(), tmp_path)
    for model in (
        build_model(tensors=MAX_GRAPH_PARTS - names + 1),
        build_model(nest("Relu", depth=1), tensors=MAX_GRAPH_PARTS - names - 1),
    ):
        with pytest.raises(CheckpointError, match=r"more than 20,000 parts\. Give a file that `semicdvl export`"):
            check(model.SerializeToString(), tmp_path)


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_a_loop_is_found_however_its_lengths_are_written(extra: int, tmp_path: Path) -> None:
    node = b"\x22" + write_varint(4, extra=extra) + b"Loop"
    graph = b"\x0a" + write_varint(len(node), extra=extra) + node
    with pytest.raises(CheckpointError, match="holds a loop"):
        check(b"\x08\x08\x3a" + write_varint(len(graph), extra=extra) + graph, tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x3a\x7f", r"a field at byte 0 is longer than what holds it"),
        (b"\x3b\x00", r"no field begins at byte 0"),
        (b"\x80\x80", r"no number begins at byte 0"),
        (b"\x09\x00", r"it ends within a field at byte 9"),
        (write_varint((1 << 32) + 0x3A) + b"\x00", r"no field begins at byte 0"),
        (b"\x80" * 10 + b"\x00", r"no number begins at byte 0"),
    ],
)
def test_damaged_bytes_are_refused_with_their_place(content: bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"x\.onnx: cannot be read as ONNX \({problem}\)\. Export it again\."):
        check(content, tmp_path)


@given(content=st.binary(max_size=60))
def test_any_bytes_pass_or_are_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        check(content, tmp_path_factory.getbasetemp())
    except CheckpointError as error:
        assert "x.onnx: " in str(error)


@given(number=st.integers(0, 2**64 - 1), extra=st.integers(0, 3))
def test_numbers_are_read_as_they_were_written(number: int, extra: int) -> None:
    content = write_varint(number, extra=extra)
    if len(content) <= onnx_graphs.MAX_VARINT_BYTES:
        assert onnx_graphs._read_varint(content, 0, len(content)) == (number, len(content))
