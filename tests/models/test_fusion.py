"""A bag of n-grams beside an encoder: its optimum, its weight, its files."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from engine.losses import build_loss
from models.args import ModelArgs
from models.ngrams.bag import NgramBag, NgramTokenizer
from models.ngrams.fit import Terms, fit_bag, join_terms
from models.ngrams.fusion import Fusion, Weights, fit_weights, load_fusion, save_fusion

TEXTS = [f"{('good', 'bad')[i % 2]} {('film', 'story', 'town')[i % 3]} {i % 7}" for i in range(84)]
LABELS = torch.tensor([(i % 2) ^ (i % 11 == 0) for i in range(84)])  # some are wrong


def make_loss(kind, labels):
    loss_fn, _ = build_loss(kind)
    return lambda logits: loss_fn(logits, labels)


def terms_of(tokenizer, texts):
    buckets, counts, ends = map(torch.from_numpy, tokenizer.count(texts, None))
    return Terms(buckets, counts, ends.diff())


def new_bag(tokenizer, terms, classes):
    bag = NgramBag(1 << tokenizer.bits, classes)
    rows = torch.repeat_interleave(terms.lengths)
    met = torch.stack([terms.buckets, rows]).unique(dim=1)[0]
    bag.weigh(torch.bincount(met, minlength=len(bag.idf)).numpy(), len(terms.lengths))
    return bag


def rows_of_logits(rows, classes, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=noise)


def test_a_bag_ends_at_the_optimum_that_scikit_learn_finds():
    tokenizer = NgramTokenizer(1, bits=10)
    terms = terms_of(tokenizer, TEXTS)
    bag = new_bag(tokenizer, terms, 2)
    loss = make_loss("single", LABELS)
    strength = fit_bag(bag, terms, loss, terms, loss)
    rows = torch.repeat_interleave(terms.lengths).numpy()
    matrix = np.zeros((len(TEXTS), 1 << 10))
    weights = bag.term_weights(terms.buckets, terms.counts, terms.lengths)
    matrix[rows, terms.buckets.numpy()] = weights.numpy()
    # two columns of opposite signs weigh half of one: |W|^2 is halved
    known = LogisticRegression(C=2 * strength, tol=1e-8, max_iter=2000).fit(matrix, LABELS)
    with torch.no_grad():
        logits = bag.answer(terms.buckets, terms.counts, terms.lengths)
    margins = (logits[:, 1] - logits[:, 0]).numpy()
    np.testing.assert_allclose(margins, known.decision_function(matrix), atol=0.02)


def test_the_strength_is_the_one_with_the_least_loss_on_held_out_rows():
    tokenizer = NgramTokenizer(1, bits=10)
    terms, held_out = terms_of(tokenizer, TEXTS), terms_of(tokenizer, TEXTS[:20])
    loss, wrong = make_loss("single", LABELS), make_loss("single", 1 - LABELS[:20])
    assert fit_bag(new_bag(tokenizer, terms, 2), terms, loss, held_out, wrong) == 0.3
    assert fit_bag(new_bag(tokenizer, terms, 2), terms, loss, terms, loss) == 100


def test_rows_read_in_two_parts_are_the_rows_read_in_one():
    tokenizer = NgramTokenizer(1, bits=10)
    whole = terms_of(tokenizer, TEXTS)
    parts = join_terms([terms_of(tokenizer, TEXTS[:30]), terms_of(tokenizer, TEXTS[30:])])
    for name in ("buckets", "counts", "lengths"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))


def test_two_classes_are_weighed_as_scikit_learn_weighs_their_margins():
    encoder, bag = rows_of_logits(300, 2), rows_of_logits(300, 2, seed=1)
    margins = torch.stack([part[:, 1] - part[:, 0] for part in (encoder, bag)], 1).double().numpy()
    odds = margins @ [0.5, 2.0]
    labels = torch.from_numpy((np.random.default_rng(0).random(300) < 1 / (1 + np.exp(-odds))) * 1)
    weights = fit_weights(encoder, bag, "single", make_loss("single", labels))
    scales = np.abs(margins / 2).__pow__(2).mean(0) ** 0.5  # of the centred logits
    known = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=1000)
    known.fit(margins / scales, labels)
    expected = known.coef_[0] / scales
    assert [weights.encoder, weights.bag] == pytest.approx(expected.tolist(), rel=1e-4)
    assert weights.rows == 300


@pytest.mark.parametrize(("kind", "classes"), [("single", 4), ("multi", 3), ("regression", 1)])
def test_the_weights_are_those_that_scipy_finds(kind, classes):
    encoder, bag = rows_of_logits(120, classes), rows_of_logits(120, classes, seed=1)
    both = encoder + 2 * bag + rows_of_logits(120, classes, seed=2)
    labels = {"single": both.argmax(1), "multi": (both > 0).float(), "regression": both[:, 0]}[kind]
    loss_of = make_loss(kind, labels)
    centred = [part - part.mean(1, keepdim=True) * (kind == "single") for part in (encoder, bag)]
    scales = np.array([float(part.double().square().mean().sqrt()) for part in centred])

    def objective(w):
        logits = w[0] * encoder.double() + w[1] * bag.double()
        return float(loss_of(logits)) + ((w * scales) ** 2).sum() / 2

    known = minimize(objective, [1.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-9})
    weights = fit_weights(encoder, bag, kind, loss_of)
    assert [weights.encoder, weights.bag] == pytest.approx(known.x.tolist(), rel=1e-4)


def test_few_rows_of_classes_give_the_mean_at_the_scale_of_the_encoder():
    encoder, bag = rows_of_logits(20, 3), 7 * rows_of_logits(20, 3)
    weights = fit_weights(encoder, bag, "single", make_loss("single", torch.zeros(20).long()))
    assert (weights.encoder, weights.rows) == (0.5, 0)
    torch.testing.assert_close(weights.join(encoder, bag), encoder)


def test_few_rows_of_numbers_give_the_mean_in_their_unit():
    encoder, bag = 0.2 * rows_of_logits(20, 1), 0.9 * rows_of_logits(20, 1, seed=1)
    weights = fit_weights(encoder, bag, "regression", make_loss("regression", encoder))
    torch.testing.assert_close(weights.join(encoder, bag), (encoder + bag) / 2)


def test_a_held_out_loss_that_is_no_number_is_told():
    tokenizer = NgramTokenizer(1, bits=10)
    terms = terms_of(tokenizer, TEXTS)
    bag, loss = new_bag(tokenizer, terms, 2), make_loss("single", LABELS)
    with pytest.raises(ValueError, match=r"the loss of held-out rows is nan at strength 0\.3"):
        fit_bag(bag, terms, loss, terms, lambda logits: loss(logits) * torch.nan)
    assert not bag.weight[:, 0].isnan().any()


def test_rows_that_both_tell_apart_without_a_mistake_have_weights_with_an_end():
    labels = torch.arange(60) % 2
    right = 10 * torch.nn.functional.one_hot(labels, 2).float()
    weights = fit_weights(right, right, "single", make_loss("single", labels))
    assert 0 < weights.encoder == weights.bag < 10


def test_joined_logits_are_the_weighted_sum():
    joined = Weights(0.5, 2.0, 9).join(torch.tensor([[1.0, -1.0]]), torch.tensor([[3.0, 0.25]]))
    assert joined.tolist() == [[6.5, 0.0]]


def test_a_saved_bag_answers_alike_and_a_damaged_weight_is_told(tmp_path):
    tokenizer = NgramTokenizer(1)
    terms = terms_of(tokenizer, TEXTS)
    bag = new_bag(tokenizer, terms, 2).eval()
    loss = make_loss("single", LABELS)
    fit_bag(bag, terms, loss, terms, loss)
    fusion = Fusion(bag, tokenizer, Weights(0.25, 1.5, 84))
    assert load_fusion(tmp_path, 2) is None
    save_fusion(fusion, ModelArgs(source="x", num_labels=2, label_names=("a", "b")), tmp_path)
    again = load_fusion(tmp_path, 2)
    assert again.weights == fusion.weights
    assert torch.equal(again.answer(TEXTS[:5], None), fusion.answer(TEXTS[:5], None))
    (tmp_path / "bag/fusion.json").write_text(
        '{"encoder": "1", "bag": 1, "rows": 2}', encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"fusion\.json is damaged"):
        load_fusion(tmp_path, 2)
