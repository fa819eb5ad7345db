"""The confusion matrix as a picture, for TensorBoard."""

import numpy as np
from PIL import Image, ImageDraw

CELL, MARGIN, MOST = 64, 96, 1200  # pixels: of a cell, before the first one, of all cells together
LEAST, LETTER = 24, 7  # pixels of the smallest cell, which holds four digits, and of a letter


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
