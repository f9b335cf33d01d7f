"""Hostile ONNX: numbers in other files, giants, unknown operations, graphs in a circle, notes that say nothing."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from functools import partial

import onnx
from tests.robustness.hostile_images import Mutation

Edit = Callable[[onnx.ModelProto], object]
PLACES = ("/etc/passwd", "../../../etc/passwd", "/dev/zero", "before.tif", "missing", "", "a" * 300, "pipe")
SHAPES = ([], [1], ["B", 3, "H", "W"], [1, 3, 7, 7], [1, 99, 64, 64], [-1, -1, -1, -1], [2**62, 3, 64, 64])
TEXTS = ("", "nan", "inf", "1e999", "-1", "x" * 10_000, "[" * 5_000, "\x1b[31m", "{}", "null", "1" * 5_000)


def place_outside(model: onnx.ModelProto, location: str, **more: str) -> None:
    """Say that numbers are in another file."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)


def set_sides(model: onnx.ModelProto, sides: list[int]) -> None:
    """Give the first tensor another shape."""
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(sides)


def set_input(model: onnx.ModelProto, sides: list[int | str]) -> None:
    """Give the input another shape."""
    shape = model.graph.input[0].type.tensor_type.shape
    del shape.dim[:]
    for side in sides:
        shape.dim.add(**({"dim_param": side} if isinstance(side, str) else {"dim_value": side}))


def fill(model: onnx.ModelProto, value: float) -> None:
    """Give the first weights another value."""
    tensor = next(one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT)
    tensor.raw_data = struct.pack("<f", value) * (len(tensor.raw_data) // 4)


def put_last(model: onnx.ModelProto, operation: str, **options: object) -> None:
    """Let another operation make what the network gives."""
    output = model.graph.output[0].name
    last = next(node for node in model.graph.node if output in node.output)
    last.output[list(last.output).index(output)] = "before_last"
    model.graph.node.append(onnx.helper.make_node(operation, ["before_last"], [output], **options))


def put_last_of_type(model: onnx.ModelProto, number: int) -> None:
    """Give the map of change in another type."""
    put_last(model, "Cast", to=number)
    model.graph.output[0].type.tensor_type.elem_type = number


def put_loop(model: onnx.ModelProto) -> None:
    """Let a loop without an end make what the network gives."""
    value = onnx.helper.make_tensor_value_info
    gives = [onnx.helper.make_node("Identity", [f"{name}_in"], [f"{name}_out"]) for name in ("more", "map")]
    takes = [value("step", onnx.TensorProto.INT64, []), value("more_in", onnx.TensorProto.BOOL, [])]
    ends = [value("more_out", onnx.TensorProto.BOOL, []), value("map_out", onnx.TensorProto.FLOAT, None)]
    body = onnx.helper.make_graph(gives, "body", [*takes, value("map_in", onnx.TensorProto.FLOAT, None)], ends)
    put_last(model, "Loop", body=body)
    model.graph.initializer.append(onnx.helper.make_tensor("endless", onnx.TensorProto.BOOL, [], [True]))
    model.graph.node[-1].input[:] = ["", "endless", "before_last"]


def put_giant(model: onnx.ModelProto, count: int = 1_500_000_000) -> None:
    """Add the sum of a tensor that only exists while the network runs: 6 GB of one number in 300 bytes of file."""
    make = onnx.helper
    put_last(model, "Add")
    model.graph.initializer.append(make.make_tensor("count", onnx.TensorProto.INT64, [1], [count]))
    giant = [
        make.make_node("ConstantOfShape", ["count"], ["giant"]),
        make.make_node("ReduceSum", ["giant"], ["sum"], keepdims=0),
    ]
    last = model.graph.node.pop()
    last.input.append("sum")
    model.graph.node.extend([*giant, last])


def put_many_tensors(model: onnx.ModelProto, count: int = 100_000) -> None:
    """Add numbers that nobody uses, for which ONNX Runtime takes half a minute."""
    for at in range(count):
        model.graph.initializer.append(onnx.helper.make_tensor(f"unused_{at}", onnx.TensorProto.FLOAT, [1], [1.0]))


def put_functions(model: onnx.ModelProto, count: int = 40) -> None:
    """Let functions call each other twice, and the last one the network: 2^40 nodes once they are written out."""
    opset = onnx.helper.make_opsetid("", 18)
    own = onnx.helper.make_opsetid("own", 1)
    for at in range(count):
        domain, name = ("own", f"twice_{at - 1}") if at else ("", "Identity")
        calls = [onnx.helper.make_node(name, [one], [other], domain=domain) for one, other in (("x", "y"), ("y", "z"))]
        model.functions.append(onnx.helper.make_function("own", f"twice_{at}", ["x"], ["z"], calls, [opset, own]))
    model.opset_import.append(own)
    put_last(model, f"twice_{count - 1}")
    model.graph.node[-1].domain = "own"


def list_edits(notes: int) -> Iterator[tuple[str, Edit]]:
    """Yield what is done, and what does it."""
    for place in PLACES:
        yield f"numbers in {place[:30]}", partial(place_outside, location=place)
    yield "numbers at -1", partial(place_outside, location="before.tif", offset="-1", length="-1")
    yield "numbers of exabytes", partial(place_outside, location="before.tif", offset="0", length=str(2**62))
    for sides in ([2**62], [2**31, 2**31], [-1], [0], [1] * 100):
        yield f"a tensor of {sides[:3]}", partial(set_sides, sides=sides)
    for shape in SHAPES:
        yield f"an input of {shape}", partial(set_input, sides=shape)
    for value in (float("nan"), float("inf"), 3e38):
        yield f"weights of {value}", partial(fill, value=value)
    for field in ("input", "output", "node"):
        yield f"no {field}", lambda model, field=field: model.graph.ClearField(field)
    yield "three inputs", lambda model: model.graph.input.add(name="x")
    yield "a loop without an end", put_loop
    yield "a tensor of 6 GB", put_giant
    yield "100,000 tensors", put_many_tensors
    yield "functions of functions", put_functions
    yield "a map of half the size", partial(put_last, operation="MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    for number in (onnx.TensorProto.BOOL, onnx.TensorProto.STRING, onnx.TensorProto.INT64):
        yield f"a map of type {number}", partial(put_last_of_type, number=number)
    yield "an unknown operation", lambda model: setattr(model.graph.node[0], "op_type", "Unknown")
    yield "a foreign domain", lambda model: setattr(model.graph.node[0], "domain", "ai.evil")
    yield "a circle", lambda model: model.graph.node[0].input.append(model.graph.output[0].name)
    for version in (0, 999):
        yield f"opset {version}", lambda model, version=version: setattr(model.opset_import[0], "version", version)
    yield "IR 999", lambda model: setattr(model, "ir_version", 999)
    yield "no notes", lambda model: model.ClearField("metadata_props")
    for text in TEXTS:
        for at in range(notes):
            yield (
                f"note {at} is {text[:10]!r}",
                lambda model, at=at, text=text: setattr(model.metadata_props[at], "value", text),
            )


def mutate_onnx(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield networks with each of the edits."""
    for name, edit in list_edits(len(onnx.load_model_from_string(content).metadata_props)):
        model = onnx.load_model_from_string(content)
        edit(model)
        yield name, model.SerializeToString()
