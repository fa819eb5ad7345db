"""A graph in 8 bits: the weights of its matrix products by onnxruntime's dynamic quantisation.

Weights become 8-bit integers once, each output column by a factor of its own; what they are
multiplied with becomes 8-bit anew for every batch. Products of activations alone, as in attention,
stay as they are, and so do small ones such as a head's, which take no time and decide. So does the
product that ends a feed-forward: a few numbers of its input are many times the others, which one
factor for all then rounds away (Bondarenko et al. 2021, arXiv:2109.12948). Of MiniLM over 600
reviews the logits are off by 0.065 (rms) with these products in 8 bits, by 0.041 without.

Weights are unsigned. Signed ones of 8 bits overflow where a processor without VNNI instructions
adds their products in pairs, and of 7 bits (reduce_range) they are off as far: of MiniLM over 64
reviews, logits are off by 0.16 (rms) with either, by 0.12 with unsigned ones (onnxruntime#9599).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from files.errors import meets_limit, one_line
from models.elsewhere.onnx_graph import quiet_export

OPERATORS = ("MatMul", "Gemm")
SMALL = 32  # rows or columns of a weight that is left alone


def quantise(source: Path, target: Path) -> None:
    """Write the graph `source` in 8 bits. Raises ValueError where onnxruntime cannot."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    try:
        model = onnx.load(source)
        # shapes as torch's exporter notes them, which onnx's own inference contradicts
        del model.graph.value_info[:]
        shapes = {one.name: tuple(one.dims) for one in model.graph.initializer}
        whole = [
            node.name + suffix
            for node in model.graph.node
            for suffix in ("", "_MatMul")  # a Gemm becomes a product of this name, and a sum
            if node.op_type in OPERATORS and stays_whole(node, shapes)
        ]
        with quiet_export():
            quantize_dynamic(
                model, target, op_types_to_quantize=[*OPERATORS], nodes_to_exclude=whole,
                per_channel=True, weight_type=QuantType.QUInt8,
                extra_options={"MatMulConstBOnly": True},
            )  # fmt: skip
    except Exception as error:  # its steps raise whatever they meet
        if meets_limit(error):
            raise
        raise ValueError(f"onnxruntime cannot quantise the graph: {one_line(error)}") from error


def stays_whole(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a product is a head's, or narrows what it is given, as the end of a feed-forward
    does."""
    transposed = any(one.name == "transB" and one.i for one in node.attribute)
    for name in node.input:
        if len(shape := shapes.get(name, ())) > 1:
            rows, columns = reversed(shape[-2:]) if transposed else shape[-2:]
            return min(rows, columns) < SMALL or rows > columns
    return False
