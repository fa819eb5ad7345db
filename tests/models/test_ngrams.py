"""A bag of n-grams: the same buckets everywhere, the same answers with torch and with numpy."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from data.bags import bags_of
from data.loaders import Padding, collate
from models.args import ModelArgs
from models.export import export_model, load_exported
from models.ngrams.bag import BAG, SCRIPT, NgramBag, NgramTokenizer, word_table
from models.ngrams.predict_ngrams import count_ngrams, predict
from models.start import open_model, open_tokenizer

WIDE = 1 << 64
TEXTS = [
    "It was good.", "Not a fan, don't recommend: don't!", "", " ... ", "good good good bad",
    "Ünïcode çà et là", "映画は良かった", "great \U0001f600\U0001f600",
    "e\u0301t\u00e9 हिन्दी ภาษาไทย", "a\x02b", "lone \ud800 surrogate",
]  # fmt: skip


def mix_slowly(number):
    return (number ^ (number >> 32)) * 0xD6E8FEB86659FD93 % WIDE


def buckets_slowly(words, bits, side=0):
    """The buckets of a text that has these words, by Python's own integers."""
    spread = []
    for word in ["\x02", *words]:
        letters = enumerate(word, start=1)
        total = sum(ord(c) * pow(0x9E3779B97F4A7C15, i, WIDE) for i, c in letters)
        spread.append((mix_slowly(total % WIDE) + side) % WIDE)
    both = spread + [(a * 3 + b) % WIDE for a, b in itertools.pairwise(spread)]
    return [mix_slowly(number) >> (64 - bits) for number in both]


def buckets_of(text, bits=18, **more):
    tokenizer = NgramTokenizer(1, bits=bits)
    buckets, counts, _ = tokenizer.count([text], None)
    return np.repeat(buckets, counts).tolist()


def make_bag(args, texts, seed=0):
    """A bag with weights that were drawn, its tokenizer, and its logits for texts or pairs."""
    pairs = None if isinstance(texts[0], str) else [text[1] for text in texts]
    firsts = texts if pairs is None else [text[0] for text in texts]
    tokenizer = open_tokenizer("ngrams", None, 1 if pairs is None else 2)
    built = open_model(args, tokenizer, 0)
    bags = bags_of(tokenizer, firsts, pairs)
    filled = np.zeros(1 << tokenizer.bits)
    for bag in bags:
        filled[bag["input_ids"]] += 1
    built.model.weigh(filled, len(texts))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        logits = built.model(**collate(bags, Padding(0))["inputs"])
    return built, tokenizer, logits


def test_the_buckets_of_a_text_stay_what_they_were():
    assert buckets_of("It was good.") == [498, 34058, 52946, 60432, 181333, 249022, 252164]
    assert buckets_of("") == [60432]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It was good.", ["it", "was", "good"]), ("don't, don't!", ["don't", "don't"]),
        ("Ça va là", ["ça", "va", "là"]), ("...", []), ("x1 2.5", ["x1", "2", "5"]),
        ("映画は", ["映", "画", "は"]), ("ok\U0001f600!", ["ok", "\U0001f600"]),
        ("हिन्दी", ["हिन्दी"]), ("a\x02b", ["a", "b"]), ("한국어 영화", ["한국어", "영화"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("bits", [18, 12])
def test_buckets_are_those_of_arithmetic_with_pythons_integers(text, words, bits):
    assert buckets_of(text, bits) == sorted(buckets_slowly(words, bits))


def test_a_text_has_the_same_buckets_beside_others_and_alone():
    tokenizer = NgramTokenizer(1)
    together = bags_of(tokenizer, TEXTS, None)
    for text, bag in zip(TEXTS, together, strict=True):
        alone = bags_of(tokenizer, [text], None)[0]
        assert bag["input_ids"].tolist() == alone["input_ids"].tolist()
        assert bag["counts"].tolist() == alone["counts"].tolist()


def test_a_word_of_the_second_text_of_a_pair_is_another_one():
    tokenizer = NgramTokenizer(2)
    first, swapped = bags_of(tokenizer, ["good film", "bad"], ["bad", "good film"])
    wanted = [*buckets_slowly(["good", "film"], 18), *buckets_slowly(["bad"], 18, side=1)]
    assert np.repeat(first["input_ids"], first["counts"]).tolist() == sorted(wanted)
    assert set(first["input_ids"].tolist()) != set(swapped["input_ids"].tolist())


def test_logits_are_the_equation_worked_out_by_hand():
    args = ModelArgs(source="ngrams", num_labels=2, label_names=("n", "p"))
    built, _, logits = make_bag(args, ["good good film", "film"])
    model = built.model
    good, film = buckets_slowly(["good"], 18)[1], buckets_slowly(["film"], 18)[1]
    assert model.idf[film] == 1  # in each of the rows
    assert model.idf[good].item() == pytest.approx(math.log(3 / 2) + 1)
    terms = buckets_slowly(["good", "good", "film"], 18)
    weights = {b: (1 + math.log(terms.count(b))) * model.idf[b].item() for b in terms}
    norm = math.sqrt(sum(w * w for w in weights.values()))
    wanted = sum(w / norm * model.weight[b] for b, w in weights.items()) + model.bias
    torch.testing.assert_close(logits[0], wanted.detach())


def test_a_term_that_no_training_row_has_changes_nothing():
    args = ModelArgs(source="ngrams", num_labels=2, label_names=("n", "p"))
    built, tokenizer, _ = make_bag(args, ["good film"])
    known, more = bags_of(tokenizer, ["good film", "good film zygote"], None)
    logits = built.model(**collate([known, more], Padding(0))["inputs"])
    torch.testing.assert_close(logits[0], logits[1])


def test_padding_changes_no_answer():
    args = ModelArgs(source="ngrams", num_labels=3, label_names=("a", "b", "c"))
    built, tokenizer, logits = make_bag(args, TEXTS)
    for text, row in zip(TEXTS, logits, strict=True):
        alone = built.model(**collate(bags_of(tokenizer, [text], None), Padding(0))["inputs"])
        torch.testing.assert_close(alone[0], row)


KINDS = [
    {"num_labels": 2, "label_names": ("neg", "pos")},
    {"num_labels": 3, "label_names": ("a", "b", "ü"), "kind": "multi"},
    {"num_labels": 1, "kind": "regression", "target_mean": 7.5, "target_deviation": 2.0},
]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=["single", "multi", "regression"])
def test_the_script_answers_as_the_model_where_torch_cannot_be_imported(kind, pairs, tmp_path):
    args = ModelArgs(source="ngrams", **kind)
    texts = [text for text in TEXTS if "\ud800" not in text]
    if pairs:
        texts = list(zip(texts, reversed(texts), strict=True))
    built, tokenizer, logits = make_bag(args, texts)
    folder = tmp_path / "model"
    export_model(built, args, tokenizer, folder)
    flat = [text for row in texts for text in row] if pairs else texts
    np.save(tmp_path / "texts.npy", np.array(flat))
    program = f"""
import sys
for name in ("torch", "transformers", "datasets", "tokenizers", "scipy", "sklearn", "models"):
    sys.modules[name] = None
sys.path.insert(0, {str(folder)!r})
import numpy as np
from predict_ngrams import predict
model = dict(np.load({str(folder / BAG)!r}))
texts = [str(text) for text in np.load({str(tmp_path / "texts.npy")!r})]
np.save({str(tmp_path / "answers.npy")!r}, predict(model, texts))
"""
    subprocess.run([sys.executable, "-I", "-c", program], check=True)
    answers = np.load(tmp_path / "answers.npy")
    wanted = {
        "single": logits.softmax(1), "multi": logits.sigmoid(), "regression": logits * 2 + 7.5
    }[args.kind]  # fmt: skip
    np.testing.assert_allclose(answers, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_a_loaded_bag_gives_the_same_logits_to_the_bit(tmp_path):
    args = ModelArgs(source="ngrams", num_labels=2, label_names=("neg", "pos"))
    built, tokenizer, logits = make_bag(args, TEXTS)
    export_model(built, args, tokenizer, tmp_path / "model")
    model, loaded, again = load_exported(tmp_path / "model")
    batch = collate(bags_of(loaded, TEXTS, None), Padding(0))
    assert torch.equal(model(**batch["inputs"]), logits)
    assert again == args


def test_the_script_has_at_most_forty_lines():
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 40


def test_many_texts_at_once_answer_as_one_by_one():
    args = ModelArgs(source="ngrams", num_labels=2, label_names=("neg", "pos"))
    built, tokenizer, _ = make_bag(args, TEXTS)
    model = {name: tensor.numpy() for name, tensor in built.model.state_dict().items()}
    model |= {"kinds": tokenizer.kinds, "sides": np.array(1), "kind": np.array("single")}
    together = predict(model, TEXTS)
    for text, row in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(predict(model, [text])[0], row)
    assert predict(model, []).shape == (0, 2)


def damage_by_size(arrays):
    arrays["weight"] = arrays["weight"][:-1]


def damage_by_table(arrays):
    arrays["kinds"][:] = 0


def damage_by_pickle(arrays):
    arrays["labels"] = np.array([{"a": 1}], dtype=object)


def damage_by_number(arrays):
    arrays["idf"] = arrays["idf"].astype(np.float64)


@pytest.mark.parametrize(
    "damage", [damage_by_size, damage_by_table, damage_by_pickle, damage_by_number]
)
def test_arrays_of_no_bag_are_refused_with_their_file(damage, tmp_path):
    args = ModelArgs(source="ngrams", num_labels=2, label_names=("neg", "pos"))
    built, tokenizer, _ = make_bag(args, TEXTS)
    export_model(built, args, tokenizer, tmp_path / "model")
    with np.load(tmp_path / "model" / BAG) as file:
        arrays = {name: file[name].copy() for name in file.files}
    damage(arrays)
    np.savez(tmp_path / "model" / BAG, **arrays)
    with pytest.raises(ValueError, match=r"ngrams\.npz is damaged"):
        load_exported(tmp_path / "model", verified=True)


def test_compressed_arrays_are_refused_before_they_are_unpacked(tmp_path):
    args = ModelArgs(source="ngrams", num_labels=2, label_names=("neg", "pos"))
    built, tokenizer, _ = make_bag(args, TEXTS)
    export_model(built, args, tokenizer, tmp_path / "model")
    with np.load(tmp_path / "model" / BAG) as file:
        arrays = {name: file[name].copy() for name in file.files}
    np.savez_compressed(tmp_path / "model" / BAG, **arrays)
    with pytest.raises(ValueError, match="compressed"):
        load_exported(tmp_path / "model", verified=True)


def test_the_table_of_characters_knows_letters_marks_and_what_stands_alone():
    kinds = word_table()
    known = {"a": 1, "'": 1, "7": 1, "é": 1, "\u0301": 1, "한": 1, "映": 2, "は": 2, "☃": 2, ".": 0}
    assert {letter: int(kinds[ord(letter)]) for letter in known} == known


def test_a_bag_starts_at_zero_whatever_the_seed():
    args = ModelArgs(source="ngrams", num_labels=2, label_names=("neg", "pos"))
    for seed in (0, 1):
        model = open_model(args, open_tokenizer("ngrams", None, 1), seed).model
        assert isinstance(model, NgramBag)
        assert not any(parameter.any() for parameter in model.parameters())


def test_counts_stay_apart_by_row():
    rows, buckets, counts = count_ngrams(["a a", "a"], word_table(), 18, 1)
    of_a = buckets_slowly(["a"], 18)[1]
    found = {int(r): int(c) for r, b, c in zip(rows, buckets, counts, strict=True) if b == of_a}
    assert found == {0: 2, 1: 1}
