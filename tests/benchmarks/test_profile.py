"""Each operation of a profile goes to one group."""

import pytest
from profile_step import ATTENTION, DROPOUT, GATES, HEAD, OTHER, PRODUCTS, PYTHON, group_of, table


@pytest.mark.parametrize(
    ("name", "above", "group"),
    [
        ("aten::addmm", ["aten::linear"], PRODUCTS),
        ("aten::bmm", [ATTENTION, "SpanAttention"], ATTENTION),
        ("aten::_softmax", [ATTENTION, "SpanAttention"], ATTENTION),
        (ATTENTION, ["SpanAttention"], ATTENTION),
        ("aten::mul_", [DROPOUT], DROPOUT),
        ("aten::mul_", [], "copies, casts, sums"),
        ("aten::gelu_backward", [], GATES),
        ("aten::native_layer_norm", [], "norms"),
        ("aten::_fused_adamw_", [], "optimizer"),
        ("SpanAttentionBackward", [], PYTHON),
        ("aten::argmax", [], OTHER),
        ("aten::mm", [HEAD, "chat_loss"], HEAD),
        ("aten::silu", [], GATES),
        ("aten::rsqrt", [], "norms"),
    ],
)
def test_an_operation_belongs_to_one_group(name, above, group):
    assert group_of(name, above) == group


def test_the_table_ends_with_the_step_and_its_floor():
    lines = table({PRODUCTS: 0.03, PYTHON: 0.01}, step=0.04, floor=0.02).splitlines()
    assert lines[2:] == [
        f"| {PRODUCTS} | 30.0 | 75.0% |",
        f"| {PYTHON} | 10.0 | 25.0% |",
        "| one step | 40.0 | 100.0% |",
        "| arithmetic floor | 20.0 | 50.0% |",
    ]
