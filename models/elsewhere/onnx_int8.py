"""A graph in 8 bits: the weights of its matrix products by onnxruntime's dynamic quantisation.

Weights become 8-bit integers once, each output column by a factor of its own; what they are
multiplied with becomes 8-bit anew for every batch. Products of activations alone, as in attention,
stay as they are.
"""

from pathlib import Path

from files.errors import meets_limit, one_line

OPERATORS = ["MatMul", "Gemm"]


def quantise(source: Path, target: Path) -> None:
    """Write the graph `source` in 8 bits. Weights have 7 of them (reduce_range): processors without
    VNNI instructions add pairs of products in 16 bits, which larger weights would overflow. Raises
    ValueError where onnxruntime cannot."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    try:
        graph = onnx.load(source)
        # shapes as torch's exporter notes them, which onnx's own inference contradicts
        del graph.graph.value_info[:]
        quantize_dynamic(
            graph, target, op_types_to_quantize=OPERATORS, per_channel=True, reduce_range=True,
            weight_type=QuantType.QInt8, extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip
    except Exception as error:  # its steps raise whatever they meet
        if meets_limit(error):
            raise
        raise ValueError(f"onnxruntime cannot quantise the graph: {one_line(error)}") from error
