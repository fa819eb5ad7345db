"""Measures how long IMDb's reviews are in tokens, for rows of that length where they are not.

    PYTHONPATH=benchmarks:. python -m gpu_steps.measure_lengths      writes imdb_lengths.json

All IMDb reviews of the package, cleaned and freed of doubles as the default recipe does, with
MiniLM's tokenizer, special tokens counted, nothing truncated.
"""

import json
from pathlib import Path

import child
import numpy as np

from configs.read import read_config
from data.encode import encode_texts
from data.long import LengthArgs
from data.prepare import load_data
from job.rows import data_args
from models.load import load_tokenizer

LENGTHS = Path(__file__).with_name("imdb_lengths.json")
QUANTILES = 200  # steps of half a percent
COMMAND = "PYTHONPATH=benchmarks:. python -m gpu_steps.measure_lengths"


def main() -> None:
    config = read_config(child.ROOT / "configs" / "imdb_lora.toml", ["data.subset={}"])
    tokenizer = load_tokenizer(config.model.source)
    lengths, length = list[int](), LengthArgs(config.data.max_length)
    for split in load_data(data_args(config)).splits.values():
        for chunk in split.iter(batch_size=1000):
            rows = encode_texts(tokenizer, chunk["text"], None, length)
            lengths += [row["full_length"] for row in rows]
    points = np.quantile(lengths, np.linspace(0, 1, QUANTILES + 1)).round().astype(int)
    content = {
        "command": COMMAND,
        "reviews": len(lengths),
        "mean": round(float(np.mean(lengths)), 1),
        "quantiles": points.tolist(),
    }
    LENGTHS.write_text(json.dumps(content) + "\n", encoding="utf-8")
    print(f"{len(lengths):,} reviews, {np.mean(lengths):.1f} tokens on average: {LENGTHS}")


if __name__ == "__main__":
    main()
