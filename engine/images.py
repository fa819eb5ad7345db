"""The confusion matrix as a picture, for TensorBoard. It is of at most engine.metrics.MOST_CONFUSED
classes: 3,300 pixels wide and high."""

import numpy as np
from PIL import Image, ImageDraw

CELL, MARGIN = 64, 96  # pixels


def confusion_image(confusion: list[list[int]], label_names: list[str]) -> np.ndarray:
    """(H, W, 3) uint8. Rows are the truth, columns the prediction; the darker, the larger the share
    of its row. Each cell carries its count."""
    size = MARGIN + CELL * len(confusion)
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    for i, (name, row) in enumerate(zip(label_names, confusion, strict=True)):
        start = MARGIN + CELL * i
        draw.text((4, start + CELL // 2 - 6), name[:14], fill="black")
        draw.text((start + 4, MARGIN - 16), name[:9], fill="black")
        total = max(sum(row), 1)
        for j, count in enumerate(row):
            share = count / total
            left = MARGIN + CELL * j
            shade = tuple(int(255 - share * (255 - c)) for c in (8, 48, 107))
            draw.rectangle([left, start, left + CELL - 2, start + CELL - 2], fill=shade)
            ink = "white" if share > 0.5 else "black"
            draw.text((left + 6, start + CELL // 2 - 6), str(count), fill=ink)
    draw.text((4, 4), "truth: rows; prediction: columns", fill="black")
    return np.asarray(image)
