from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from data.encode import encode, encode_texts
from data.loaders import Padding, collate, eval_batches
from data.long import LengthArgs

LETTERS = " ".join("abcdefghijklmnopqrst")
ENDS = LengthArgs(8, long="head_tail", head_tokens=2)
CHUNKS = LengthArgs(8, long="chunks", stride=2)


@pytest.fixture
def letters():
    """A tokenizer of one token a letter: [CLS] 0, [SEP] 1, a 2, b 3, …"""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="z"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A:1 [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "z"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_input_names=names, **special)


def spell(tokenizer, ids):
    return " ".join(tokenizer.convert_ids_to_tokens(ids))


def test_both_ends_of_a_long_text_stand_between_the_special_tokens(letters):
    (row,) = encode_texts(letters, [LETTERS], None, ENDS)
    assert spell(letters, row["input_ids"]) == "[CLS] a b q r s t [SEP]"
    assert row["token_type_ids"] == [0, 1, 1, 1, 1, 1, 1, 0]
    assert (row["length"], row["full_length"]) == (8, 22)


def test_the_beginning_has_a_quarter_of_the_tokens_unless_it_is_said(letters):
    (row,) = encode_texts(letters, [LETTERS], None, LengthArgs(12, long="head_tail"))
    assert spell(letters, row["input_ids"]) == "[CLS] a b c n o p q r s t [SEP]"


@pytest.mark.parametrize("count", [1, 5, 6])
def test_a_text_that_fits_is_the_same_row_whatever_becomes_of_longer_ones(letters, count):
    text = LETTERS[: 2 * count - 1]
    assert encode_texts(letters, [text], None, ENDS) == encode_texts(
        letters, [text], None, LengthArgs(8)
    )


def test_a_tokenizer_in_python_keeps_both_ends_too():
    from transformers import CanineTokenizer

    tokenizer = CanineTokenizer()
    (row,) = encode_texts(tokenizer, ["abcdefghijklmnopqrst"], None, ENDS)
    whole = tokenizer("abqrst")
    assert row["input_ids"] == whole["input_ids"]
    assert row["token_type_ids"] == whole["token_type_ids"]
    assert (row["length"], row["full_length"]) == (8, 22)


def test_special_tokens_in_the_text_itself_are_text(letters):
    (row,) = encode_texts(letters, ["[CLS] [SEP] " + LETTERS], None, ENDS)
    assert spell(letters, row["input_ids"]) == "[CLS] [CLS] [SEP] q r s t [SEP]"


def test_what_lies_between_the_ends_is_counted_as_cut(letters):
    rows = {"text": ["a b", LETTERS], "label": [0, 1], "row": [0, 1]}
    encoded = encode(Dataset.from_dict(rows), letters, ENDS, None, "x")
    assert (encoded.truncated_rows, encoded.tokens, encoded.cut_tokens) == (1, 12, 14)


def test_another_share_of_the_beginning_is_another_row_of_the_cache(letters, tmp_path):
    rows = Dataset.from_dict({"text": [LETTERS], "label": [0], "row": [0]})
    assert not encode(rows, letters, ENDS, tmp_path, "x").hit
    assert encode(rows, letters, ENDS, tmp_path, "x").hit
    for length in (LengthArgs(8), LengthArgs(8, long="head_tail", head_tokens=3)):
        assert not encode(rows, letters, length, tmp_path, "x").hit


@pytest.mark.parametrize("head", [0, 6, 9])
def test_both_ends_need_room(letters, head):
    length = LengthArgs(8, long="head_tail", head_tokens=head)
    with pytest.raises(ValueError, match=r"data.head_tokens: got \d, expected 1 to 5: of data"):
        encode_texts(letters, ["a"], None, length)


def test_a_pair_has_no_two_ends(letters):
    with pytest.raises(ValueError, match=r'data.long: "head_tail" is for single texts'):
        encode_texts(letters, ["a"], ["b"], ENDS)


def list_windows(tokenizer, row):
    ends = np.cumsum(row["windows"]).tolist()
    spans = zip([0, *ends], ends, strict=False)
    return [spell(tokenizer, row["input_ids"][start:end]) for start, end in spans]


def test_windows_overlap_and_have_their_own_special_tokens(letters):
    (row,) = encode_texts(letters, ["a b c d e f g h i j k l"], None, CHUNKS)
    assert list_windows(letters, row) == [
        "[CLS] a b c d e f [SEP]",
        "[CLS] e f g h i j [SEP]",
        "[CLS] i j k l [SEP]",
    ]
    assert row["token_type_ids"] == [0, *[1] * 6, 0] * 2 + [0, *[1] * 4, 0]
    assert (row["length"], row["full_length"], row["lost"]) == (22, 14, 0)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("stride", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [1, 5, 6, 7, 10, 11, 20])
def test_windows_are_those_of_transformers_own_tokenizer(letters, side, stride, count):
    text, length = LETTERS[: 2 * count - 1], replace(CHUNKS, truncation=side, stride=stride)
    (row,) = encode_texts(letters, [text], None, length)
    letters.truncation_side = side
    called = letters(
        [text], truncation=True, max_length=8, stride=stride, return_overflowing_tokens=True
    )
    assert list_windows(letters, row) == [spell(letters, ids) for ids in called["input_ids"]]


@pytest.mark.parametrize(("side", "kept"), [("right", "a b c d e f"), ("left", "o p q r s t")])
def test_windows_beyond_the_most_are_cut_and_counted(letters, side, kept):
    length = replace(CHUNKS, truncation=side, max_windows=1)
    rows = {"text": ["a b", LETTERS], "label": [0, 1], "row": [0, 1]}
    encoded = encode(Dataset.from_dict(rows), letters, length, None, "x")
    assert list_windows(letters, encoded.dataset[1]) == [f"[CLS] {kept} [SEP]"]
    assert (encoded.truncated_rows, encoded.tokens, encoded.cut_tokens) == (1, 12, 14)


def test_a_short_text_in_windows_is_the_row_that_it_is_without(letters):
    rows = {"text": ["a b", "c d e f g h"], "label": [0, 1], "row": [0, 1]}
    batches = []
    for length in (CHUNKS, LengthArgs(8)):
        encoded = encode(Dataset.from_dict(rows), letters, length, None, "x")
        batches.append(collate(list(encoded.dataset), Padding(27, multiple=1)))
    windows = batches[0]["inputs"].pop("windows")
    assert windows.tolist() == [[0], [1]]
    assert batches[0]["inputs"].keys() == batches[1]["inputs"].keys()
    for name, tensor in batches[1]["inputs"].items():
        assert batches[0]["inputs"][name].equal(tensor)


def test_each_window_is_a_row_of_the_batch_and_a_label_is_a_texts(letters):
    texts = {"text": ["a b c d e f g h i j k l", "a b"], "label": [1, 0], "row": [5, 6]}
    rows = list(encode(Dataset.from_dict(texts), letters, CHUNKS, None, "x").dataset)
    batch = collate(rows, Padding(27, multiple=1))
    assert batch["inputs"]["windows"].tolist() == [[0, 1, 2], [3, -1, -1]]
    assert batch["inputs"]["attention_mask"].sum(1).tolist() == [8, 8, 6, 4]
    assert batch["inputs"]["input_ids"][2, :6].tolist() == rows[0]["input_ids"][16:]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["rows"].tolist() == [5, 6]
    assert batch["tokens"] == 26


def test_a_batch_of_an_evaluation_holds_so_many_windows(letters):
    texts = [LETTERS, "a b c d e f g h", *["a b c d e f"] * 4]
    columns = {"text": texts, "label": [0] * 6, "row": list(range(6))}
    encoded = encode(Dataset.from_dict(columns), letters, CHUNKS, None, "x")
    batches = list(eval_batches(encoded.dataset, 2, Padding(27, multiple=1)))
    assert [batch["rows"].tolist() for batch in batches] == [[0], [1], [2, 3], [4, 5]]
    assert [len(batch["inputs"]["input_ids"]) for batch in batches] == [5, 2, 2, 2]


@pytest.mark.parametrize("stride", [6, 9])
def test_a_window_has_tokens_of_its_own(letters, stride):
    with pytest.raises(ValueError, match=r"data.stride: got \d, expected 0 to 5: of data"):
        encode_texts(letters, ["a"], None, replace(CHUNKS, stride=stride))
