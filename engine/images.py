"""The confusion matrix and the reliability diagram as pictures, for TensorBoard."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

CELL, MARGIN, MOST = 64, 96, 1200  # pixels: of a cell, before the first one, of all cells together
LEAST, LETTER = 24, 7  # pixels of the smallest cell, which holds four digits, and of a letter

SIDE, EDGE = 400, 56  # pixels of the diagram, and around it
BLUE, LIGHT, GREY = (8, 48, 107), (158, 192, 224), (120, 120, 120)


def cell_size(classes: int) -> int:
    """Pixels of a cell: the more classes, the smaller, as the picture is of at most
    engine.metrics.MOST_CONFUSED classes and takes 20 times its bytes while it is drawn."""
    return max(LEAST, min(CELL, MOST // max(classes, 1)))


def confusion_image(confusion: list[list[int]], label_names: list[str]) -> np.ndarray:
    """(H, W, 3) uint8. Rows are the truth, columns the prediction; the darker, the larger the share
    of its row. Each cell carries its count."""
    cell = cell_size(len(confusion))
    size = MARGIN + cell * len(confusion)
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    for i, (name, row) in enumerate(zip(label_names, confusion, strict=True)):
        start = MARGIN + cell * i
        draw.text((4, start + cell // 2 - 6), name[:14], fill="black")
        draw.text((start + 4, MARGIN - 16), name[: cell // LETTER], fill="black")
        total = max(sum(row), 1)
        for j, count in enumerate(row):
            share = count / total
            left = MARGIN + cell * j
            shade = tuple(int(255 - share * (255 - c)) for c in (8, 48, 107))
            draw.rectangle([left, start, left + cell - 2, start + cell - 2], fill=shade)
            ink = "white" if share > 0.5 else "black"
            draw.text((left + cell // 10, start + cell // 2 - 6), str(count), fill=ink)
    draw.text((4, 4), "truth: rows; prediction: columns", fill="black")
    return np.asarray(image)


def reliability_image(groups: Sequence[tuple[float, int, int, float, float]]) -> np.ndarray:
    """(H, W, 3) uint8. Rows in even bins by the share of their answer: (mean share, rows, rows
    answered rightly, low, high), the last two the 95 % interval of what is right.

    A bar is as high as the share that is right, with its interval; where it ends on the line, the
    shares are what they say (DeGroot and Fienberg 1983). Its number is that of its rows.
    """
    size = SIDE + 2 * EDGE
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)

    def place(across: float, up: float) -> tuple[int, int]:
        return EDGE + round(across * SIDE), EDGE + round((1 - up) * SIDE)

    for tick in range(0, 11, 2):
        draw.text((EDGE - 34, place(0, tick / 10)[1] - 6), f"{10 * tick} %", fill="black")
        draw.text((place(tick / 10, 0)[0] - 10, size - EDGE + 8), f"{10 * tick} %", fill="black")
    for number, (mean, rows, right, low, high) in enumerate(groups):
        if not rows:
            continue
        left, end = (number + 0.08) / len(groups), (number + 0.92) / len(groups)
        draw.rectangle([place(left, right / rows), place(end, 0)], fill=LIGHT)
        draw.line([place(mean, low), place(mean, high)], fill=BLUE, width=2)
        x, y = place(mean, right / rows)
        draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=BLUE)
        draw.text((place(left, 0)[0], size - EDGE - 14), str(rows), fill=BLUE)
    draw.line([place(0, 0), place(1, 1)], fill=GREY, width=1)
    draw.rectangle([place(0, 1), place(1, 0)], outline="black")
    draw.text((EDGE, 8), "right answers (up) by the share of the answer (across),", fill="black")
    draw.text(
        (EDGE, 24), "with 95 % intervals; on the line the shares can be trusted", fill="black"
    )
    return np.asarray(image)
