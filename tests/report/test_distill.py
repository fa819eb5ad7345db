"""Teacher and student in one table."""

from report.distill import Side, side_lines, side_table


def side(name, device):
    return Side(name, "accuracy", 0.9, 2_000_000, 500_000, 1234.0, device)


def test_the_device_is_named_where_the_two_are_not_on_one():
    rows = side_table([side("teacher", "cuda:0"), side("student", "cpu")])
    assert [row[-1] for row in rows] == ["rows a second", "1234 on cuda:0", "1234 on cpu"]
    assert "cpu" not in side_lines([side("teacher", "cpu"), side("student", "cpu")])
