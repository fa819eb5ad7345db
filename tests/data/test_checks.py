"""What may be wrong with texts, found by algorithms alone."""

import itertools
import unicodedata

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from data.checks.groups import find_leak, groups_rows, likely_columns, read_groups
from data.checks.language import tell_language
from data.checks.mojibake import find_garbled, mend
from data.checks.near import (
    NEAR,
    NearPair,
    NearSet,
    candidate_pairs,
    compare_texts,
    join_pairs,
    near_pairs,
    sign_texts,
)
from data.checks.shingles import has_no_blanks, resemblance, shingles
from data.checks.templates import find_templates
from data.prepare import DataArgs
from models.ngrams.bag import stands_alone

WORDS = [a + b for a, b in itertools.product(["ba", "do", "ki", "lu", "me", "so"], repeat=2)]


def sentence(draw, length=60):
    return " ".join(draw.choice(WORDS, length))


def changed(text, draw, share):
    words = text.split()
    for i in draw.permutation(len(words))[: round(share * len(words))]:
        words[i] = f"new{i}"
    return " ".join(words)


def test_shingles_ignore_case_tags_and_punctuation():
    assert shingles("A good, <br />good film!") == {"a good good", "good good film"}
    assert shingles("Good film") == {"good film"}
    assert shingles("…") == {"…"}
    assert shingles(" <br />") == set()
    assert len(shingles("这部电影非常好看演员也很出色")) == 10


def test_resemblance_is_the_index_of_jaccard():
    one, other = {"a", "b", "c"}, {"b", "c", "d"}
    assert resemblance(one, other) == 2 / 4
    assert resemblance(set(), set()) == 1
    assert resemblance(one, set()) == 0


def test_every_near_pair_is_found_and_each_is_verified_on_the_texts():
    draw = np.random.default_rng(0)
    texts = [sentence(draw) for _ in range(150)]
    texts += [
        changed(text, draw, share)
        for text, share in zip(texts[:60], np.linspace(0, 0.2, 60), strict=True)
    ]
    pairs = near_pairs(
        sign_texts((text,) for text in texts), lambda rows: [(texts[row],) for row in rows]
    )
    sets = [shingles(text) for text in texts]
    exact = {
        (i, j): resemblance(sets[i], sets[j])
        for i, j in itertools.combinations(range(len(texts)), 2)
        if resemblance(sets[i], sets[j]) >= NEAR
    }  # by comparing all with all
    assert len(exact) > 30
    found = {(pair.left, pair.right): pair.resemblance for pair in pairs}
    assert found.items() <= exact.items()
    assert len(found) >= 0.97 * len(exact)


def test_many_copies_of_one_text_make_few_candidates_that_hang_together():
    texts = ["one text that stands there very many times in the same words"] * 500
    signatures = sign_texts((text,) for text in texts)
    assert len(candidate_pairs(signatures)) < 1000
    pairs = near_pairs(signatures, lambda rows: [(texts[row],) for row in rows])
    assert join_pairs(pairs) == [NearSet(list(range(500)), 1.0)]


def test_candidates_are_those_of_every_band_by_looking_at_all():
    draw = np.random.default_rng(0)
    signatures = draw.integers(3, size=(90, 120)).astype(np.uint32)
    expected = set()
    for start in range(0, 120, 3):
        agreeing = {}
        for row, values in enumerate(signatures[:, start : start + 3].tolist()):
            rows = agreeing.setdefault(tuple(values), [])
            expected |= {(rows[0], row), (rows[-1], row)} if rows else set()
            rows.append(row)
    assert len(expected) > 1000
    assert [tuple(pair) for pair in candidate_pairs(signatures).tolist()] == sorted(expected)
    for few in (signatures[:0], signatures[:1]):
        assert candidate_pairs(few).shape == (0, 2)


def test_rows_that_hang_together_have_the_least_of_their_pairs():
    pairs = [NearPair(7, 9, 0.9), NearPair(0, 2, 0.8), NearPair(2, 5, 0.6), NearPair(8, 9, 0.7)]
    assert join_pairs(pairs) == [NearSet([0, 2, 5], 0.6), NearSet([7, 8, 9], 0.7)]
    draw = np.random.default_rng(0)
    ends = [sorted(draw.choice(300, 2, replace=False).tolist()) for _ in range(200)]
    pairs = [NearPair(*two, float(draw.random())) for two in ends]
    graph = csr_matrix((np.ones(200), np.array(ends).T), shape=(300, 300))
    _, names = connected_components(graph, directed=False)
    for one in join_pairs(pairs):
        (name,) = set(names[one.rows])
        assert one.rows == np.flatnonzero(names == name).tolist()
        assert one.resemblance == min(p.resemblance for p in pairs if p.left in one.rows)


def test_rows_of_one_form_are_left_out_before_any_text_is_read():
    form = "dear {} your order of the film has left our house today and now"
    texts = [(form.format(i),) for i in range(3000)]
    texts += [("another text that stands there twice in the same words",)] * 2
    texts += [(f"{texts[0][0]} now",)]
    forms = np.array([0] * 3000 + [-1] * 3)
    read = []

    def note(rows):
        read.extend(rows)
        return [texts[row] for row in rows]

    pairs = near_pairs(sign_texts(texts), note, forms)
    assert {(3000, 3001)} < {(pair.left, pair.right) for pair in pairs}
    assert {pair.right for pair in pairs if pair.right != 3001} == {3002}  # of no form itself
    assert len(read) < 1000


def test_one_other_word_in_a_short_text_is_another_text():
    assert compare_texts(("the film was good",), ("the film was bad",)) is None
    assert compare_texts(("The film was good!",), ("the film was good",)) == 1
    long = "the film that we saw last night in the old town was good"
    assert compare_texts((long,), (long.replace("night", "week"),)) == pytest.approx(8 / 14)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("👍", "👎"), ("???", "!!!"), ("★★★★★", "★☆☆☆☆"), (":)", ":("), ("…", "—"), ("😀", "😡 😡"),
        ("great 👍", "great 👎"), ("ok :)", "ok :("), ("这部电影👍", "这部电影👎"), ("", "?"),
        ("- + -", "+ - +"), ("well ❤", "well 💔"),
    ],
)  # fmt: skip
def test_texts_that_differ_in_signs_alone_are_no_copies(one, other):
    assert compare_texts((one,), (other,)) is None
    assert compare_texts((one,), (f" {one} ",)) == 1
    assert near_pairs(sign_texts([(one,), (other,)]), lambda _: [(one,), (other,)]) == []


CHINESE = "这家店的菜很好吃,服务也不错,下次还会来。环境也很干净,价格不贵,推荐给大家"


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (CHINESE, "昨天" + CHINESE),
        (CHINESE, CHINESE.replace(",", "。").replace("推荐", "介绍")),
        ("この店の料理はとても美味しい、サービスも良い、また来ます",
         "この店の料理はとても美味しい。サービスも良い。また来るよ"),
        ("ร้านนี้อาหารอร่อยมาก บริการดี จะมาอีก", "ร้านนี้อาหารอร่อยมาก บริการดี จะกลับมาอีก"),
        ("这款iPhone手机的battery很好,屏幕也不错,推荐购买",
         "这款iPhone手机的battery很好,屏幕也不错。推荐大家购买"),
    ],
)  # fmt: skip
def test_near_copies_in_scripts_without_blanks_are_found(text, other):
    assert has_no_blanks(text)
    assert (compare_texts((text,), (other,)) or 0) >= NEAR
    unlike = text[::-1]
    assert compare_texts((text,), (unlike,)) is None


@pytest.mark.parametrize(
    "text",
    ["Donaudampfschifffahrtsgesellschaft Rindfleischetikettierungsüberwachung",
     "영화가 정말 좋았다", "The film 花樣年華 was very good", "Привет, как дела", "", "naïve",
     "हिन्दी में लिखा है"],
)  # fmt: skip
def test_scripts_with_blanks_are_read_by_words(text):
    assert not has_no_blanks(text)


def test_letters_without_blanks_are_those_that_stand_alone_in_a_bag():
    letters = map(chr, range(0x10000))
    alone = [c for c in letters if stands_alone(c, unicodedata.category(c))]
    assert len(alone) > 20_000
    assert [c for c in alone if not has_no_blanks(c)] == []


def test_of_pairs_both_texts_have_to_be_near():
    draw = np.random.default_rng(1)
    premise, one, other = sentence(draw), sentence(draw), sentence(draw)
    assert compare_texts((premise, one), (premise, other)) is None
    assert compare_texts((premise, one), (premise, one)) == 1


@pytest.mark.parametrize(
    "text",
    ["café “quoted” naïve", "Ångström — 5 €", "è già", "日本語", "Привет", "voilà", "perché no",
     "Größe über alles", "dziękuję bardzo", "są", "Żaba", "mañana", "día", "irmã", "Καλημέρα",
     "nguyễn", "là một", "că și", "täällä", "it’s", "one – two", "10 °C", "½ litre", "ну да",
     "שלום", "مرحبا", "สวัสดี", "five ★", "good 👍", "à la carte", "\ufeffbegin"],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_what_was_read_in_another_encoding_is_found_and_no_other(text, encoding):
    assert find_garbled(text) is None
    try:
        garbled = text.encode("utf-8").decode(encoding)
    except UnicodeDecodeError:
        return  # a byte that cp1252 has not
    run = find_garbled(garbled)
    assert run is not None
    assert mend(run) in text


@pytest.mark.parametrize(
    "text",
    ["plain", "Ã la carte", "SÃO PAULO", "100 % â", "20 °C, ±5 £", "ÂNGELO", "naïve «é»",
     "«\u00a0j'ai aimé\u00a0»", "et voilà\u00a0», dit-il", "«LIBERTÉ» et «ÉGALITÉ»…", "das »MENÜ«",
     "TÄÄLLÄ… ”TÄMÄ”", "«GÅ» och DÅ…och", "Spaß“ und Spaß…", "«LA CITTÀ È…»", "NESCAFÉ® CAFÉ™",
     "IRMÃ…", "«ya está»… –", "«está»—dijo él", "aimé—»", "été…\u00a0» fin", "5\u00a0×\u00a0n",
     "È\u00a0vero", "Å\u00a0være", "“HÉ!” – É…", "für »Öl«, Ä…", "CAFÉ’s", "«à\u00a0»\u00a0!"],
)  # fmt: skip
def test_what_only_looks_odd_is_no_mojibake(text):
    assert find_garbled(text) is None


def test_a_replacement_character_counts():
    assert find_garbled("caf\ufffd au lait") is not None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The film was as good as I had hoped, and it is one of the best that I know.", "English"),
        ("Der Film war nicht so gut wie ich dachte, aber es ist ein schönes Bild von der Zeit.",
         "German"),
        ("Le film est très bon et les acteurs sont dans la meilleure forme, que je ne vois pas.",
         "French"),
        ("La película es muy buena y los actores no están mal, pero el final no.", "Spanish"),
        ("O filme não é muito bom, mas os atores são os melhores que uma pessoa pode ver.",
         "Portuguese"),
        ("Il film non è male, ma la storia è una di quelle che non si possono dire.", "Italian"),
        ("De film is niet zo goed, maar het is een mooi beeld van de tijd en dat is wat.", "Dutch"),
        ("Filmen är inte så bra, men det är en fin bild av tiden och det som var.", "Swedish"),
        ("Фильм очень хороший, актёры играют прекрасно, но конец слишком длинный.", "Cyrillic"),
        ("この映画はとても面白かったです。俳優も良かった。", "Japanese"),
        ("这部电影非常好看，演员也很出色，结尾太长了。", "Chinese"),
        ("영화가 정말 재미있었고 배우들도 좋았습니다.", "Korean"),
        ("Good film.", None),
        ("Tarantino Scorsese Fellini Kurosawa Ozu Hitchcock Welles Ford Hawks", None),
    ],
)  # fmt: skip
def test_languages_are_told_by_script_and_small_words(text, language):
    assert tell_language(text) == language


def test_a_form_that_is_filled_in_is_found_with_its_rows():
    draw = np.random.default_rng(0)
    texts = [sentence(draw, 12) for _ in range(200)]
    rows = [5 * i for i in range(40)]
    for row in rows:
        texts[row] = f"Dear {sentence(draw, 1)}{row}, your order {row} has left our house."
    templates = find_templates(lambda: texts, len(texts))
    assert [template.rows for template in templates] == [rows]
    assert templates[0].form == "dear … your order … has left our house"


def test_fewer_rows_are_no_template():
    draw = np.random.default_rng(0)
    texts = [sentence(draw, 12) for _ in range(200)]
    texts[:19] = [f"Dear {i}x, your order {i} has left our house." for i in range(19)]
    assert find_templates(lambda: texts, len(texts)) == []


def test_columns_that_group_rows_are_known_by_their_names(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "text,label,movieId,FILM,stars\n"
        + "".join(f"t {i},{i % 2},{i // 2},,3\n" for i in range(9)),
        encoding="utf-8",
    )
    args = DataArgs(str(path))
    assert likely_columns(args) == ["movieId", "FILM"]
    addresses = [f"a.csv:{i + 2}" for i in range(9)]
    assert read_groups(args, "movieId", addresses) == [str(i // 2) for i in range(9)]
    assert len(set(read_groups(args, "FILM", addresses))) == 9  # a row without one stands alone


def test_a_category_groups_no_rows():
    assert groups_rows([str(i // 3) for i in range(60)])
    assert not groups_rows([str(i) for i in range(60)])
    assert not groups_rows([str(i % 4) for i in range(60)])
    assert not groups_rows(["most"] * 40 + [str(i // 2) for i in range(60)])


def test_a_leak_is_the_groups_on_two_sides_with_their_rows():
    leak = find_leak("film", ["a", "a", "b", "c", "c"], ["train", "test", "train", "test", "test"])
    assert (leak.groups, leak.shared, leak.rows) == (3, ["a"], {"train": [0], "test": [1]})
    assert find_leak("film", ["a", "b"], ["train", "test"]) is None
