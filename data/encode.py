"""Texts become token ids, once: batched, truncated from the side asked for, cached, not padded.

Each text is tokenised whole and only then truncated, so that what is cut off is counted, not
guessed.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from data.cache import make_key, open_built, read_arrow, write_arrow
from data.long import LengthArgs, check_length, fit_row, lost_tokens
from data.slow_tokenizers import encode_in_python
from files.read import read_json

CHUNK = 1000  # texts given to the tokenizer at a time; it spreads them over its threads


@dataclass(frozen=True)
class Encoded:
    """An encoded split: columns input_ids, token_type_ids (where the tokenizer has them), windows
    (tokens of each, where texts are read in windows), labels, row, length (tokens of the row),
    full_length (tokens of the whole text).
    `key` is the hash of all that decides it. `tokens` are kept, `cut_tokens` were lost."""

    dataset: datasets.Dataset
    key: str
    hit: bool  # whether it came from the cache
    rows: int
    truncated_rows: int
    tokens: int
    cut_tokens: int


@dataclass
class Counts:
    """The sums of an `Encoded`, growing while its rows are made."""

    rows: int = 0
    truncated_rows: int = 0
    tokens: int = 0
    cut_tokens: int = 0


def encode(
    dataset: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    length: LengthArgs,
    cache_dir: Path | None,
    fingerprint: str,
) -> Encoded:
    """Encode a split with columns text, text_pair?, label, row.

    `fingerprint` is that of the data; together with the split's rows, the tokenizer's bytes, the
    options and this package's code it makes the key under `cache_dir`. Without a `cache_dir` the
    result is held in memory. Raises ValueError for a length that leaves no room for text.
    """
    check_length(tokenizer, length, "text_pair" in dataset.column_names)
    counts = Counts()
    schema = _schema(dataset, tokenizer, length)
    batches = _batches(dataset, tokenizer, length, schema, counts)
    key = make_key(
        tokenizer=tokenizer_digest(tokenizer),
        length=asdict(length),
        fingerprint=fingerprint,
        rows=hashlib.sha256(np.array(dataset["row"], dtype=np.int64).tobytes()).hexdigest(),
    )
    if cache_dir is None:
        table = pa.Table.from_batches(list(batches), schema=schema)
        return Encoded(datasets.Dataset(table), key, False, **asdict(counts))
    folder = cache_dir / "encoded" / key[:32]

    def write(made: Path) -> None:
        write_arrow(made / "rows.arrow", schema, batches)
        (made / "counts.json").write_text(json.dumps(asdict(counts)), encoding="utf-8")

    hit = open_built(folder, write)
    stored = read_json(folder / "counts.json", asdict(counts))
    return Encoded(read_arrow(folder / "rows.arrow"), key, hit, **stored)


def encode_texts(
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    pairs: list[str] | None,
    length: LengthArgs,
) -> list[dict[str, Any]]:
    """One dict a text: input_ids, token_type_ids (where the tokenizer has them), length (tokens
    kept) and full_length (tokens before truncation). No padding; order as given.

    The tokenizer's own post-processor adds the special tokens and cuts (pairs: the longer text
    first), so the result is what calling the tokenizer with truncation gives; other ways to read
    a long text are long.py's. Raises ValueError for a text that leaves no token at all.
    """
    check_length(tokenizer, length, pairs is not None)
    special = tokenizer.num_special_tokens_to_add(pair=pairs is not None)
    has_types = "token_type_ids" in tokenizer.model_input_names
    if not tokenizer.is_fast:
        rows = encode_in_python(tokenizer, texts, pairs, length, special)
        _check_lengths(rows, texts)
        return rows
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    first = backend.encode_batch_fast(texts, add_special_tokens=False)
    second = [None] * len(first)
    if pairs is not None:
        second = backend.encode_batch_fast(pairs, add_special_tokens=False)
    if length.long == "cut":
        side = length.truncation
        backend.enable_truncation(length.max_length, strategy="longest_first", direction=side)
    rows = []
    for one, other in zip(first, second, strict=True):
        # Counted now: post_process may truncate what it is given in place.
        full_length = len(one) + (len(other) if other else 0) + special
        done = backend.post_process(one, other)
        row = {"input_ids": done.ids, "length": len(done), "full_length": full_length}
        row |= {"token_type_ids": done.type_ids} if has_types else {}
        if length.long != "cut":
            before = done.special_tokens_mask.index(0) if len(one) else special
            row = fit_row(row, before, special, length)
        rows.append(row)
    backend.no_truncation()
    _check_lengths(rows, texts)
    return rows


def _check_lengths(rows: list[dict[str, Any]], texts: list[str]) -> None:
    for row, text in zip(rows, texts, strict=True):
        if not row["length"]:
            raise ValueError(f"a text without a single token: {text!r}")


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of the tokenizer's own bytes: vocabulary, merges, rules, special tokens.

    Its padding and truncation, which every call here sets anew, are reset.
    """
    if not tokenizer.is_fast:  # what it was made from, and what it makes of every token it has
        made_of = {k: str(v) for k, v in tokenizer.init_kwargs.items() if "name_or_path" not in k}
        made_of["class"] = type(tokenizer).__name__
        known = [sorted(made_of.items()), sorted(tokenizer.get_vocab().items())]
        return hashlib.sha256(repr([*known, tokenizer.model_input_names]).encode()).hexdigest()
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    content = [backend.to_str(), *tokenizer.model_input_names]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


def _schema(
    dataset: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, length: LengthArgs
) -> pa.Schema:
    fields = [("input_ids", pa.list_(pa.int32()))]
    if "token_type_ids" in tokenizer.model_input_names:
        fields.append(("token_type_ids", pa.list_(pa.int8())))
    if length.long == "chunks":
        fields.append(("windows", pa.list_(pa.int32())))
    label = dataset.features.arrow_schema.field("label").type
    lengths = [("length", pa.int32()), ("full_length", pa.int32())]
    return pa.schema([*fields, ("labels", label), ("row", pa.int64()), *lengths])


def _batches(
    dataset: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    length: LengthArgs,
    schema: pa.Schema,
    counts: Counts,
) -> Iterator[pa.RecordBatch]:
    """The encoded rows, CHUNK at a time; what is counted grows in `counts`."""
    for chunk in dataset.iter(batch_size=CHUNK):
        texts, pairs = chunk["text"], chunk.get("text_pair")
        rows = encode_texts(tokenizer, texts, pairs, length)
        cut = [lost_tokens(row) for row in rows]
        counts.rows += len(rows)
        counts.truncated_rows += sum(n > 0 for n in cut)
        counts.tokens += sum(row["length"] for row in rows)
        counts.cut_tokens += sum(cut)
        columns = {name: [row[name] for row in rows] for name in schema.names if name in rows[0]}
        columns |= {"labels": chunk["label"], "row": chunk["row"]}
        yield pa.RecordBatch.from_pydict(columns, schema=schema)
