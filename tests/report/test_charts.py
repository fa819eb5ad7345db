"""The charts: their marks stand where the numbers say, and nothing of a name is taken as markup."""

import xml.etree.ElementTree as ET

import pytest

from report.page.charts import SMALL, WIDE, Series, chart, line_chart

SVG = "{http://www.w3.org/2000/svg}"


def places(svg: str) -> list[list[tuple[float, float]]]:
    """The points of each line, as they lie on the page."""
    lines = []
    for group in ET.fromstring(svg).findall(f"{SVG}g"):
        path = group.find(f"{SVG}path")
        assert path is not None
        pairs = path.attrib["d"].removeprefix("M").split("L")
        lines.append([(float(x), float(y)) for x, y in (pair.split() for pair in pairs)])
    return lines


def test_equal_steps_of_a_value_are_equal_steps_on_the_page():
    (line,) = places(line_chart({"a": [(0, 1), (1, 2), (2, 3)]}, "t", "x", "y"))
    (x0, y0), (x1, y1), (x2, y2) = line
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert x1 > x0
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y1 < y0


def test_equal_factors_are_equal_steps_on_a_logarithmic_axis():
    (line,) = places(line_chart({"a": [(1, 1), (10, 2), (100, 3)]}, "t", "x", "y", log_x=True))
    assert line[1][0] - line[0][0] == pytest.approx(line[2][0] - line[1][0], abs=0.2)


def test_a_short_logarithmic_axis_has_several_numbers():
    svg = line_chart({"a": [(32, 1), (85, 2)]}, "t", "x", "y", log_x=True)
    names = [text.text for text in ET.fromstring(svg).iter(f"{SVG}text")]
    assert {"40", "50", "60", "70", "80"} <= set(names)


@pytest.mark.parametrize(
    "points", [[(0, 0)], [(5, 0.9), (5, 0.9)], [(-1e9, 3), (1e9, -4)], [(1e-9, 1), (2e-9, 1)]]
)
def test_every_point_lies_inside_the_plot(points):
    (line,) = places(line_chart({"a": points}, "t", "x", "y"))
    right, bottom = WIDE.width - WIDE.right, WIDE.height - WIDE.bottom
    assert all(WIDE.left <= x <= right and 0 <= y <= bottom for x, y in line)


def test_a_name_is_shown_letter_by_letter():
    name = "</text><script>alert(1)</script>"
    svg = line_chart({name: [(0, 1), (1, 2)]}, name, name, name)
    root = ET.fromstring(svg)
    assert not list(root.iter(f"{SVG}script"))
    assert sum(text.text == name for text in root.iter(f"{SVG}text")) == 4


def test_the_legend_goes_by_the_last_value():
    svg = line_chart({"low": [(0, 9), (1, 1)], "high": [(0, 1), (1, 9)]}, "t", "x", "y")
    names = [text.text for text in ET.fromstring(svg).iter(f"{SVG}text")]
    assert names[-2:] == ["high", "low"]


@pytest.mark.parametrize(
    ("lines", "log_x"),
    [({}, False), ({"a": []}, False), ({"a": [(0, float("nan"))]}, False), ({"a": [(0, 1)]}, True)],
)
def test_what_no_chart_can_show_is_refused(lines, log_x):
    with pytest.raises(ValueError, match="t: "):
        line_chart(lines, "t", "x", "y", log_x)


@pytest.mark.parametrize("count", [1, 2, 6])
def test_the_legend_of_a_small_chart_stands_above_its_lines(count):
    series = [Series(f"a name of some length {n}", [(0, n), (1, n + 1)]) for n in range(count)]
    svg = chart(series, "t", "x", "y", frame=SMALL)
    highest = min(y for line in places(svg) for _, y in line)
    texts = [text for text in ET.fromstring(svg).iter(f"{SVG}text") if "length" in str(text.text)]
    assert len(texts) == (count if count > 1 else 0)
    assert all(float(text.attrib["y"]) < highest for text in texts)
    assert all(float(text.attrib["x"]) + 7 * len(str(text.text)) < SMALL.width for text in texts)
