import copy
from dataclasses import replace

import pytest
from datasets import Dataset

from data.encode import encode, encode_texts, tokenizer_digest
from data.long import LengthArgs

FIFTY = LengthArgs(50)
LONG = " ".join(["the film was a story of people in town and it had an actor"] * 40)


def make(texts, pairs=None):
    columns = {"text": texts, "label": [i % 2 for i in range(len(texts))]}
    columns |= {"row": list(range(10, 10 + len(texts)))}
    return Dataset.from_dict(columns | ({"text_pair": pairs} if pairs else {}))


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_400_token_text_is_cut_to_the_length_asked_for(tiny_tokenizer, side):
    (row,) = encode_texts(tiny_tokenizer, [LONG], None, LengthArgs(256, side))
    assert row["full_length"] >= 402
    assert len(row["input_ids"]) == row["length"] == 256
    assert row["input_ids"][0] == tiny_tokenizer.cls_token_id
    assert row["input_ids"][-1] == tiny_tokenizer.sep_token_id


def test_left_truncation_keeps_the_end_and_right_truncation_the_start(tiny_tokenizer):
    (left,) = encode_texts(tiny_tokenizer, [LONG], None, LengthArgs(20, "left"))
    (right,) = encode_texts(tiny_tokenizer, [LONG], None, LengthArgs(20))
    whole = tiny_tokenizer(LONG)["input_ids"]
    assert left["input_ids"] == whole[:1] + whole[-19:]
    assert right["input_ids"] == whole[:19] + whole[-1:]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [8, 17, 60])
@pytest.mark.parametrize("with_pairs", [False, True])
def test_encoding_equals_calling_the_tokenizer(tiny_tokenizer, side, max_length, with_pairs):
    texts = [LONG[: 7 * i + 1] for i in range(30)]
    pairs = texts[::-1] if with_pairs else None
    rows = encode_texts(tiny_tokenizer, texts, pairs, LengthArgs(max_length, side))
    whole = tiny_tokenizer(texts, pairs)["input_ids"]
    before = tiny_tokenizer.truncation_side
    tiny_tokenizer.truncation_side = side
    cut = tiny_tokenizer(texts, pairs, truncation="longest_first", max_length=max_length)
    tiny_tokenizer.truncation_side = before
    assert [row["input_ids"] for row in rows] == cut["input_ids"]
    assert [row["full_length"] for row in rows] == [len(ids) for ids in whole]
    if "token_type_ids" in cut:
        assert [row["token_type_ids"] for row in rows] == cut["token_type_ids"]


def test_encoding_equals_calling_a_byte_level_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<s>": 0, "</s>": 1, "<pad>": 2}
    for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[letter] = len(vocabulary)
    raw = Tokenizer(models.BPE(vocabulary, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    texts, pairs = [LONG[:9], LONG[:90]], [LONG[:40], "café"]
    rows = encode_texts(tokenizer, texts, pairs, LengthArgs(30))
    called = tokenizer(texts, pairs, truncation="longest_first", max_length=30)
    assert [row["input_ids"] for row in rows] == called["input_ids"]


def test_encoding_is_not_padded_whatever_the_tokenizer_was_set_to(tiny_tokenizer):
    tiny_tokenizer.backend_tokenizer.enable_padding(length=128)
    tiny_tokenizer.backend_tokenizer.enable_truncation(5)
    rows = encode_texts(tiny_tokenizer, ["the film", LONG], None, LengthArgs(300))
    assert rows[0]["length"] == len(rows[0]["input_ids"]) < 10
    assert rows[1]["length"] == 300


def test_what_truncation_cuts_off_is_counted(tiny_tokenizer):
    encoded = encode(make(["the film", LONG, LONG]), tiny_tokenizer, FIFTY, None, "x")
    full = len(tiny_tokenizer(LONG)["input_ids"])
    assert (encoded.rows, encoded.truncated_rows) == (3, 2)
    assert encoded.cut_tokens == 2 * (full - 50)
    assert encoded.tokens == sum(encoded.dataset["length"]) == 100 + encoded.dataset[0]["length"]


def test_encoded_rows_keep_labels_and_addresses(tiny_tokenizer, tmp_path):
    encoded = encode(make(["the film", "music"]), tiny_tokenizer, FIFTY, tmp_path, "x")
    assert not encoded.hit
    assert list(encoded.dataset["labels"]) == [0, 1]
    assert list(encoded.dataset["row"]) == [10, 11]


def test_lists_of_labels_stay_lists(tiny_tokenizer):
    dataset = make(["the film", "music"]).remove_columns("label")
    dataset = dataset.add_column("label", [[0.0, 1.0], [1.0, 1.0]])
    encoded = encode(dataset, tiny_tokenizer, FIFTY, None, "x")
    assert list(encoded.dataset["labels"]) == [[0, 1], [1, 1]]


def test_the_same_question_is_answered_from_the_cache(tiny_tokenizer, tmp_path):
    dataset = make(["the film", LONG])
    first = encode(dataset, tiny_tokenizer, FIFTY, tmp_path, "x")
    second = encode(dataset, tiny_tokenizer, FIFTY, tmp_path, "x")
    assert (first.hit, second.hit) == (False, True)
    assert first.dataset.to_dict() == second.dataset.to_dict()
    assert second.cut_tokens == first.cut_tokens > 0


def test_any_other_question_is_not(tiny_tokenizer, tmp_path):
    dataset = make(["the film", "music", LONG])
    encode(dataset, tiny_tokenizer, FIFTY, tmp_path, "x")
    assert not encode(dataset, tiny_tokenizer, LengthArgs(51, "right"), tmp_path, "x").hit
    assert not encode(dataset, tiny_tokenizer, replace(FIFTY, truncation="left"), tmp_path, "x").hit
    assert not encode(dataset, tiny_tokenizer, FIFTY, tmp_path, "y").hit
    assert not encode(dataset.select([0, 1]), tiny_tokenizer, FIFTY, tmp_path, "x").hit


def test_a_changed_tokenizer_misses_the_cache(tiny_tokenizer, tmp_path):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    dataset = make(["the film"])
    encode(dataset, tokenizer, FIFTY, tmp_path, "x")
    digest = tokenizer_digest(tokenizer)
    tokenizer(["music"], truncation=True, max_length=5, padding="max_length")
    assert tokenizer_digest(tokenizer) == digest  # a call's own settings are not the tokenizer
    assert encode(dataset, tokenizer, FIFTY, tmp_path, "x").hit
    tokenizer.add_tokens(["filmish"])
    assert tokenizer_digest(tokenizer) != digest
    assert not encode(dataset, tokenizer, FIFTY, tmp_path, "x").hit


@pytest.mark.parametrize(("max_length", "side"), [(2, "right"), (0, "left"), (50, "middle")])
def test_an_impossible_truncation_is_refused(tiny_tokenizer, max_length, side):
    with pytest.raises(ValueError, match=r"data\.(max_length|truncation): got"):
        encode_texts(tiny_tokenizer, ["the film"], None, LengthArgs(max_length, side))


def test_no_texts_give_no_rows(tiny_tokenizer):
    assert encode_texts(tiny_tokenizer, [], None, FIFTY) == []


def test_a_text_without_tokens_is_refused():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    bare = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]")
    with pytest.raises(ValueError, match="a text without a single token: ' '"):
        encode_texts(bare, ["a", " "], None, FIFTY)


def test_a_tokenizer_in_python_gives_the_rows_of_its_own_call():
    from transformers import CanineTokenizer

    tokenizer = CanineTokenizer()
    for pairs in (None, ["and another", "b"]):
        rows = encode_texts(tokenizer, ["a film", "x"], pairs, LengthArgs(12))
        for i, text in enumerate(["a film", "x"]):
            other = [] if pairs is None else [pairs[i]]
            own = tokenizer(text, *other, truncation="longest_first", max_length=12)
            whole = tokenizer(text, *other)
            assert rows[i]["input_ids"] == own["input_ids"]
            assert rows[i]["full_length"] == len(whole["input_ids"])
            assert rows[i]["length"] == len(own["input_ids"])
