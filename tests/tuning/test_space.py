"""What is tried: read from words, drawn by number, and made into recipes without an error."""

import pytest

from configs.read import read_config
from job.tuning.sample import draw_place
from job.tuning.space import (
    RATE,
    RATES,
    WAY,
    Dimension,
    change,
    default_space,
    read_space,
    settings_at,
    way_of,
)
from job.tuning.tpe import suggest

PAIR = '["query", "value"]'


def usual(config, cut=0.5, most=512, whole=True):
    return default_space(config, ("query", "key", "value", "dense"), cut, most, whole)


def keys(space):
    return [one.key for one in space]


def test_a_space_is_read_and_said_in_the_same_words():
    word = f"train.lr=1e-05..0.001,lora.rank=4|8|16,lora.targets=all-linear|{PAIR}"
    space = read_space([word, "train.warmup=0..0.2"])
    assert ",".join(one.words for one in space) == word + ",train.warmup=0..0.2"
    assert read_space([one.words for one in space]) == space


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("train.lrr=1e-5..1e-3", "train.lr"),
        ("train.lr", "LOW..HIGH"),
        ("train.lr=1e-3..1e-5", "begins at 0.001"),
        ("train.lr=a..b", "two numbers"),
        ("train.lr=1e-5..inf", "two finite numbers"),
        ("train.lr=fast|slow", "got fast"),
        ("head.pool=0..1", "takes no numbers"),
        ("data.subset=1|2", "same in all trials"),
        ("run.seed=1|2", "same in all trials"),
        ("eval.metric=loss|accuracy", "same in all trials"),
        ("run.keep=1|2", "changes nothing"),
        ("way=lora|magic", "takes lora"),
        ("train.lr=1e-5..1e-3,train.lr=1|2", "twice"),
    ],
)
def test_what_is_wrong_with_a_space_is_said(word, part):
    with pytest.raises(ValueError, match=part):
        read_space([word])


def test_a_recipe_with_lora_searches_rank_and_targets_and_whether_all_learns(recipe):
    space = usual(read_config(recipe(train={"micro_batch_size": 16, "accumulate": 1})))
    assert keys(space) == [
        RATE, "head.pool", "data.max_length", "lora.rank", "lora.targets", WAY,
        "train.micro_batch_size",
    ]  # fmt: skip


def test_whole_weights_have_rates_of_their_own(recipe):
    config = read_config(recipe(lora=None, train={"lr": 5e-5}))
    assert way_of(config) == "full"
    rates = usual(config)[0]
    assert (rates.low, rates.high) == RATES["full"]


def test_a_bag_and_a_probe_have_small_spaces_of_their_own():
    bag = read_config("configs/imdb_ngrams.toml")
    assert keys(usual(bag)) == [RATE, "train.weight_decay"]
    probe = read_config("configs/imdb_probe.toml")
    assert keys(usual(probe)) == ["train.weight_decay", "head.pool", "data.max_length"]


def test_no_length_is_tried_where_the_time_chose_it_or_the_model_has_no_room(recipe):
    config = read_config(recipe(data={"max_length": 128}))
    assert "data.max_length" not in keys(usual(config, whole=False))
    lengths = {one.key: one.choices for one in usual(config, most=128)}["data.max_length"]
    assert lengths == ("64", "128")
    lengths = {one.key: one.choices for one in usual(config, most=256)}["data.max_length"]
    assert lengths == ("64", "128", "256")
    lengths = {one.key: one.choices for one in usual(config, cut=0.0)}["data.max_length"]
    assert lengths == ("64", "128")


def test_a_place_is_a_function_of_seed_and_number_alone(recipe):
    space = usual(read_config(recipe()))
    first = [draw_place(space, 0, n) for n in range(20)]
    assert draw_place(space, 0, 13) == first[13]
    assert first == [draw_place(space, 0, n) for n in range(20)]
    assert draw_place(space, 1, 13) != first[13]
    assert draw_place(space, 0, 13, again=1) != first[13]


def test_drawn_settings_make_recipes_and_stay_in_their_ranges(recipe):
    config = read_config(recipe(train={"micro_batch_size": 16, "accumulate": 1}))
    space = usual(config)
    ways, rates = set(), []
    for number in range(60):
        settings = settings_at(space, config, draw_place(space, 0, number), ranged=False)
        changed = change(config, settings)
        ways.add(way_of(changed))
        low, high = RATES[way_of(changed)]
        assert min(low, 2.5e-3) * 0.99 <= changed.train.lr <= max(high, 3e-2) * 1.01
        rates += [changed.train.lr] if way_of(changed) == "lora" else []
        assert (changed.lora is None) == (way_of(changed) == "full")
    assert ways == {"lora", "full"}
    assert min(rates) < 1e-3 < 5e-3 < max(rates)  # evenly by the logarithm


def test_a_choice_that_the_recipe_has_already_changes_nothing(recipe):
    config = read_config(recipe())
    space = read_space([f"lora.rank=2|4,lora.targets={PAIR}|all-linear"])
    place = {"lora.rank": "2", "lora.targets": PAIR}
    assert settings_at(space, config, place, False) == {}
    place = {"lora.rank": "4", "lora.targets": None}
    assert settings_at(space, config, place, False) == {"lora.rank": "4"}


def test_another_way_leaves_out_what_belongs_to_the_first(recipe):
    config = read_config(recipe(train={"head_lr": 1e-2}))
    settings = settings_at(read_space(["way=lora|full,lora.rank=4"]), config, {WAY: "full"}, False)
    assert settings[WAY] == "full"
    low, high = RATES["full"]
    assert low <= float(settings[RATE]) <= high  # LoRA's rate would ruin it
    changed = change(config, settings)
    assert (changed.lora, changed.model.train, changed.train.head_lr) == (None, "all", None)
    back = change(changed, {WAY: "lora", RATE: "0.001"})
    assert back.lora is not None


def test_whole_numbers_stay_whole():
    one = Dimension("train.epochs", 1, 8)
    assert {one.number(unit, 1, 8) for unit in (0, 0.5, 0.99)} <= {str(n) for n in range(1, 9)}


def test_tpe_is_a_function_of_what_it_is_told_and_learns_from_it(recipe):
    space = read_space(["train.lr=1e-4..1e-1,lora.rank=4|8"])
    results = [
        ({"train.lr": (n % 10) / 10, "lora.rank": "4" if n % 2 else "8"}, (abs(n % 10 - 7), 0.0))
        for n in range(40)
    ]  # the best lie at 0.7
    results += [({}, (3.0, 0.0)), ({"train.lr": 0.1, "lora.rank": "8"}, None)]
    places = [suggest(space, results, 0, n, 0) for n in range(12)]
    assert places[3] == suggest(space, results, 0, 3, 0)
    near = sum(abs(place["train.lr"] - 0.7) < 0.2 for place in places)
    assert near >= 8
    assert suggest(space, [], 0, 1, 0).keys() == {"train.lr", "lora.rank"}
