"""Graphs in 8 bits: blocks of 32 with a factor each, held against float64 and the whole graph."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from models.elsewhere import onnx_int8
from models.elsewhere.onnx_int8 import BLOCK, ZERO, quantise, to_blocks


@pytest.fixture
def draw():
    """draw(*shape): random numbers, the same in every order of the tests."""
    random = np.random.default_rng(0)
    return lambda *shape: random.normal(size=shape).astype(np.float32)


def save(path, nodes, inputs, constants):
    """A graph that gives "y"; the types of its inputs, by name."""
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info(*one, None) for one in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(one, name) for name, one in constants.items()],
    )  # fmt: skip
    version = [helper.make_opsetid("", 18)]
    onnx.save_model(helper.make_model(graph, opset_imports=version, ir_version=10), path)
    return path


def ask(path, **inputs):
    return InferenceSession(path).run(None, inputs)[0]


def operators(path):
    return sorted(node.op_type for node in onnx.load(path).graph.node)


def off(got, wanted):
    """How far numbers are off (rms), as a share of how far they spread."""
    return np.sqrt(((got - wanted) ** 2).mean()) / np.std(wanted)


@pytest.fixture
def multiplied(tmp_path):
    """multiplied(weight): the graph of a product x @ weight."""

    def write(weight):
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        return save(tmp_path / "whole.onnx", [node], {"x": TensorProto.FLOAT}, {"w": weight})

    return write


def test_a_block_is_off_by_half_a_step_at_most(draw):
    matrix = draw(40, 70)  # the third block of a row has six weights
    matrix[3] = 0
    codes, factors = to_blocks(matrix)
    assert codes.shape == (40, 3, BLOCK)
    assert factors.shape == (40, 3)
    back = (codes.astype(np.float64) - ZERO) * factors[..., None]
    wrong = np.abs(back.reshape(40, -1)[:, :70] - matrix)
    steps = np.repeat(factors, BLOCK, axis=1)[:, :70]
    assert (wrong <= steps * 0.5001).all()
    assert not back[3].any()
    assert (codes.min(), codes.max()) == (1, 255)


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("size", [(32, 32), (48, 70), (384, 33)])
def test_a_product_in_blocks_is_the_product(draw, rows, size, multiplied, tmp_path):
    x, weight = draw(2, rows, size[0]), draw(*size)
    quantise(multiplied(weight), tmp_path / "eight.onnx")
    assert operators(tmp_path / "eight.onnx") == ["MatMulNBits"]
    assert off(ask(tmp_path / "eight.onnx", x=x), x.astype(np.float64) @ weight) < 0.015


def test_a_large_number_costs_its_own_block_alone(draw, multiplied, tmp_path):
    x, weight = draw(64, 96), draw(96, 40)
    weight[:BLOCK] = 0  # so that nothing of it is in the answer but what it does to others
    x[:, 5] = 1000
    quantise(multiplied(weight), tmp_path / "eight.onnx")
    assert off(ask(tmp_path / "eight.onnx", x=x), x.astype(np.float64) @ weight) < 0.015


def test_a_table_in_blocks_is_the_table(draw, tmp_path):
    table, ids = draw(200, 70), np.random.default_rng(1).integers(0, 200, (3, 9))
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    whole = save(tmp_path / "whole.onnx", [node], {"ids": TensorProto.INT64}, {"table": table})
    quantise(whole, tmp_path / "eight.onnx")
    assert operators(tmp_path / "eight.onnx") == ["GatherBlockQuantized"]
    assert off(ask(tmp_path / "eight.onnx", ids=ids), table[ids]) < 0.01
    assert (tmp_path / "eight.onnx").stat().st_size < 0.4 * whole.stat().st_size


def test_a_layer_that_adds_its_bias_is_a_product_too(draw, tmp_path):
    x, weight, bias = draw(5, 64), draw(40, 64), draw(40)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    constants = {"w": weight, "b": bias}
    whole = save(tmp_path / "whole.onnx", [node], {"x": TensorProto.FLOAT}, constants)
    quantise(whole, tmp_path / "eight.onnx")
    assert operators(tmp_path / "eight.onnx") == ["Add", "MatMulNBits"]
    names = [one.name for one in onnx.load(tmp_path / "eight.onnx").graph.initializer]
    assert len(names) == 3  # codes, factors and the bias: the whole weight is gone
    wanted = x.astype(np.float64) @ weight.T + bias
    assert off(ask(tmp_path / "eight.onnx", x=x), wanted) < 0.015


def test_layers_that_share_a_weight_share_its_blocks(draw, tmp_path):
    x, weight = draw(5, 64), draw(64, 64)
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in ("xh", "hy")]
    whole = save(tmp_path / "whole.onnx", nodes, {"x": TensorProto.FLOAT}, {"w": weight})
    quantise(whole, tmp_path / "eight.onnx")
    assert operators(tmp_path / "eight.onnx") == ["MatMulNBits"] * 2
    assert len(onnx.load(tmp_path / "eight.onnx").graph.initializer) == 2
    assert off(ask(tmp_path / "eight.onnx", x=x), x.astype(np.float64) @ weight @ weight) < 0.02


SECONDS = {  # another reader of the weight of a product
    "added": ("Add", ["x", "w"]),
    "multiplied from the left": ("MatMul", ["w", "x"]),
    "looked up": ("Gather", ["w", "ids"]),
}


@pytest.mark.parametrize("name", SECONDS)
def test_a_weight_that_something_else_reads_stays_whole(draw, name, tmp_path):
    operator, inputs = SECONDS[name]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node(operator, inputs, ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    given = {"x": draw(64, 64), "ids": np.arange(64)}
    kinds = {"x": TensorProto.FLOAT, "ids": TensorProto.INT64}
    whole = save(tmp_path / "whole.onnx", nodes, kinds, {"w": draw(64, 64)})
    quantise(whole, tmp_path / "eight.onnx")
    assert operators(tmp_path / "eight.onnx") == operators(whole)
    np.testing.assert_array_equal(ask(tmp_path / "eight.onnx", **given), ask(whole, **given))


@pytest.mark.parametrize("reads", ["Add", "MatMul"])
def test_a_branch_reads_a_weight_too(reads, draw, tmp_path):
    result = [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)]
    inner = helper.make_graph([helper.make_node(reads, ["x", "w"], ["b"])], "then", [], result)
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "else", [], result)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("If", ["which"], ["c"], then_branch=inner, else_branch=other),
        helper.make_node("Add", ["a", "c"], ["y"]),
    ]
    kinds = {"x": TensorProto.FLOAT, "which": TensorProto.BOOL}
    whole = save(tmp_path / "whole.onnx", nodes, kinds, {"w": draw(64, 64)})
    quantise(whole, tmp_path / "eight.onnx")
    assert ("MatMul" in operators(tmp_path / "eight.onnx")) == (reads == "Add")
    given = {"x": draw(64, 64), "which": np.array(True)}
    assert off(ask(tmp_path / "eight.onnx", **given), ask(whole, **given)) < 0.015


@pytest.mark.parametrize("axis", [0, 1])
def test_only_rows_of_a_table_are_looked_up(draw, axis, tmp_path):
    node = helper.make_node("Gather", ["w", "ids"], ["y"], axis=axis)
    whole = save(tmp_path / "w.onnx", [node], {"ids": TensorProto.INT64}, {"w": draw(64, 64)})
    quantise(whole, tmp_path / "eight.onnx")
    assert operators(tmp_path / "eight.onnx") == ["Gather" if axis else "GatherBlockQuantized"]


@pytest.mark.parametrize("size", [(64, 2), (31, 64)])
def test_a_small_weight_stays_whole(draw, size, multiplied, tmp_path):
    quantise(multiplied(draw(*size)), tmp_path / "eight.onnx")
    assert operators(tmp_path / "eight.onnx") == ["MatMul"]


def test_a_graph_that_one_file_cannot_hold_has_its_weights_beside(
    draw, multiplied, tmp_path, monkeypatch
):
    whole, x = multiplied(draw(96, 96)), draw(5, 96)
    quantise(whole, tmp_path / "one.onnx")
    monkeypatch.setattr(onnx_int8, "LARGEST", 2000)
    quantise(whole, tmp_path / "eight.onnx")
    assert (tmp_path / "eight.onnx.data").stat().st_size > 9216 > (
        (tmp_path / "eight.onnx").stat().st_size
    )  # fmt: skip
    answers = [ask(tmp_path / name, x=x) for name in ("one.onnx", "eight.onnx")]
    np.testing.assert_array_equal(*answers)


def test_a_graph_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "whole.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match="the graph cannot be written in 8 bits: "):
        quantise(tmp_path / "whole.onnx", tmp_path / "eight.onnx")
