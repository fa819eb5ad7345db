import pytest
from datasets import Dataset

from data.encode import encode, encode_texts
from data.long import LengthArgs

LETTERS = " ".join("abcdefghijklmnopqrst")
ENDS = LengthArgs(8, long="head_tail", head_tokens=2)


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
