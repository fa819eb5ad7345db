"""A graph in 8 bits: the weights of its matrix products and its tables of embeddings.

32 weights in a row share a factor, as in llama.cpp's Q8_0. What such a block is multiplied with
becomes 8-bit too, 32 numbers at a time and as they come: onnxruntime's MatMulNBits at its accuracy
level 4. A few numbers in a transformer's layers are many times the others (Bondarenko et al. 2021,
arXiv:2109.12948). One factor for a whole input, as in onnxruntime's quantize_dynamic, rounds the
others away; here such a number costs only its own block. Of MiniLM over 600 reviews the logits are
off by 0.045 (rms) with quantize_dynamic, although it left the ends of the feed-forwards whole, and
by 0.010 with blocks.

Products of activations alone, as in attention, stay as they are, and so do small ones such as a
head's, which take no time and decide.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from files.errors import meets_limit, one_line

BLOCK = 32  # weights that share a factor
ZERO = 128  # what stands for 0: both operators mean it where they are given none
AS_8_BITS = 4  # MatMulNBits' accuracy_level at which it multiplies 8-bit numbers
FACTORS = "_factors"  # behind the name of the weight that they belong to
SMALL = 32  # rows or columns of a weight that is left alone
DOMAIN = "com.microsoft"  # of onnxruntime's own operators
LARGEST = 2**30  # bytes of weights in a graph's own file, which can hold twice that


def quantise(source: Path, target: Path) -> None:
    """Write the graph `source` in 8 bits. Raises ValueError where it cannot be read or written."""
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel

    try:
        loaded = ONNXModel(onnx.load(source))
        loaded.replace_gemm_with_matmul()  # a product, and a sum after it
        loaded.clean_initializers()
        loaded.set_opset_import(DOMAIN, 1)
        model = loaded.model
        shrink_weights(model.graph)
        size = sum(len(one.raw_data) for one in model.graph.initializer)
        onnx.save_model(
            model, target, save_as_external_data=size > LARGEST, location=f"{target.name}.data"
        )
    except Exception as error:  # its steps raise whatever they meet
        if meets_limit(error):
            raise
        raise ValueError(f"the graph cannot be written in 8 bits: {one_line(error)}") from error


def shrink_weights(graph: Any) -> None:
    """Put each weight into blocks that is read by products alone or looked up alone; in place."""
    from onnx import numpy_helper

    readers = defaultdict(list)
    for node in nodes_in(graph):
        for name in set(node.input):
            readers[name].append(node)
    del graph.value_info[:]  # says of a weight what it was
    for weight in list(graph.initializer):
        if not is_large(weight):
            continue
        name, nodes = weight.name, readers[weight.name]
        matrix = numpy_helper.to_array(weight)
        rows, columns = matrix.shape
        if all(multiplies(node, name) for node in nodes):
            codes, factors = to_blocks(matrix.T)  # what a block joins lies in a row
            operator = "MatMulNBits"
            attributes = {"K": rows, "N": columns, "accuracy_level": AS_8_BITS}
        elif all(looks_up(node, name) for node in nodes):
            codes, factors = to_blocks(matrix)
            codes = codes.reshape(rows, -1)[:, :columns]  # a table has no place for filling
            operator, attributes = "GatherBlockQuantized", {"gather_axis": 0, "quantize_axis": 1}
        else:
            continue
        for node in nodes:
            become(node, operator, attributes)
            node.input.append(f"{name}{FACTORS}")
        weight.CopyFrom(numpy_helper.from_array(codes, name))
        graph.initializer.append(numpy_helper.from_array(factors, f"{name}{FACTORS}"))


def nodes_in(graph: Any) -> Iterator[Any]:
    """The nodes of a graph, and of the branches and loops in it, which read its weights too."""
    for node in graph.node:
        yield node
        for one in node.attribute:
            for inner in (one.g, *one.graphs):
                yield from nodes_in(inner)


def to_blocks(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix (R, C) in blocks of its rows: codes (R, B, BLOCK) uint8, and factors (R, B) fp32. A
    weight is (code - ZERO) times its factor; the last block is filled with zeros."""
    rows, columns = matrix.shape
    padded = np.pad(matrix, ((0, 0), (0, -columns % BLOCK)))
    blocks = padded.reshape(rows, -1, BLOCK)
    factors = np.abs(blocks).max(-1) / 127  # (R, B)
    codes = np.rint(blocks / np.where(factors, factors, 1)[..., None]) + ZERO
    return codes.astype(np.uint8), factors.astype(np.float32)


def is_large(weight: Any) -> bool:
    """Whether a constant is a matrix of fp32 numbers, and no side of it is small."""
    from onnx import TensorProto

    is_matrix = weight.data_type == TensorProto.FLOAT and len(weight.dims) == 2
    return is_matrix and min(weight.dims) >= SMALL


def multiplies(node: Any, name: str) -> bool:
    """Whether a constant is the matrix that a product's input is multiplied with."""
    return node.op_type == "MatMul" and node.input[0] != name


def looks_up(node: Any, name: str) -> bool:
    """Whether a constant is the table whose rows are looked up."""
    axes = [one.i for one in node.attribute if one.name == "axis"]
    return node.op_type == "Gather" and node.input[1] != name and axes in ([], [0])


def become(node: Any, operator: str, attributes: dict[str, int]) -> None:
    """Turn a node into an operator of onnxruntime's own."""
    from onnx import helper

    node.op_type, node.domain = operator, DOMAIN
    del node.attribute[:]
    attributes = {"bits": 8, "block_size": BLOCK, **attributes}
    node.attribute.extend(helper.make_attribute(key, one) for key, one in attributes.items())
