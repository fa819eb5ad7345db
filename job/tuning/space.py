"""What a search tries: settings in a recipe's own words, each with its range or its choices.

A place in the space is a number from 0 to below 1 a setting, or a choice of it; None leaves the
recipe's own. Places, not settings, are what samplers draw.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.fields import explain_unknown, list_settings
from configs.overrides import parse_text
from configs.read import all_settings, parse_config
from configs.schema import METHODS, Config
from job.tuning.plan import SHORTEST

WAY = "way"  # a setting of the search alone: which weights learn
RATE = "train.lr"
WAYS = ("lora", "adapter", "full", "bias", "head")  # and last:N
RATES = {  # peaks that are worth trying, about a factor of three around those of benchmarks/ways.py
    "lora": (3e-4, 1e-2), "adapter": (3e-4, 1e-2), "method": (3e-4, 1e-2), "full": (1e-5, 3e-4),
    "last": (5e-5, 2e-3), "bias": (5e-4, 1e-2), "prompt": (1e-2, 5e-1), "prefix": (5e-3, 2e-1),
    "head": (2e-3, 1e-1), "ngrams": (5e-3, 2e-1),
}  # fmt: skip
RANKS = ("4", "8", "16", "32")
PAIRS = (("query", "value"), ("q_lin", "v_lin"), ("q_proj", "v_proj"), ("c_attn",), ("Wqkv",))
POOLS = ("mean", "cls")
LORA = {"rank": 8, "alpha": 16.0, "targets": "all-linear"}  # where a recipe has no [lora]
OFTEN_CUT = 0.1  # share of rows that a length cuts, from which a longer one is worth trying

Value = float | str | None  # a number from 0 to below 1 for a range, a choice, or the recipe's own
Place = Mapping[str, Value]


@dataclass(frozen=True)
class Dimension:
    """A setting with its range (low, high), or with choices as they are typed."""

    key: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """As it is typed after --space."""
        value = "|".join(self.choices) if self.choices else f"{self.low:g}..{self.high:g}"
        return f"{self.key}={value}"

    @property
    def whole(self) -> bool:
        """Whether its numbers are integers."""
        return "number" not in list_settings()[self.key].kinds

    def number(self, unit: float, low: float, high: float) -> str:
        """The number at a place, evenly by its logarithm where the range begins above 0."""
        if low > 0:
            value = math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
        else:
            value = low + unit * (high - low)
        return str(round(value)) if self.whole else f"{value:.3g}"


def way_of(config: Config) -> str:
    """What learns in a recipe, as WAYS has it."""
    if config.model.source == "ngrams":
        return "ngrams"
    method = next((name for name in METHODS if getattr(config, name) is not None), None)
    return method or {None: "full", "all": "full"}.get(config.model.train, str(config.model.train))


def rate_range(way: str, own: float | None) -> tuple[float, float]:
    """The rates to try for a way; where `own` is the recipe's, it lies well within."""
    low, high = RATES[way.partition(":")[0]]
    return (low, high) if own is None else (min(low, own / 4), max(high, own * 3))


# ---- which there are -----------------------------------------------------------------------------


def default_space(
    config: Config, linears: Sequence[str], cut: float, most: int, whole: bool
) -> list[Dimension]:
    """What makes sense for a recipe. `linears`: names of the model's linear layers; `cut`: the
    share of rows that the recipe's length cuts; `most`: the longest row that model and time allow.
    `whole`: the recipe is trained in full, so that the length is not chosen by the time."""
    way = way_of(config)
    low, high = rate_range(way, config.train.lr)
    space = [Dimension(RATE, float(f"{low:.3g}"), float(f"{high:.3g}"))]
    if way == "ngrams":
        return [*space, Dimension("train.weight_decay", 1e-3, 1e-1)]
    if config.train.decay == "l2" and config.train.weight_decay:
        own = config.train.weight_decay
        space = [
            Dimension("train.weight_decay", own / 10, own * 10)
        ]  # its optimum, not its way there
    pooled = config.head.kind in ("linear", "mlp") and config.head.pool is not None
    if pooled:
        pools = dict.fromkeys([str(config.head.pool), *POOLS])
        space.append(Dimension("head.pool", choices=tuple(pools)))
    if whole and config.data.long == "cut":
        own, lengths = config.data.max_length, []
        lengths = [own // 2] * (own // 2 >= SHORTEST) + [own]
        lengths += [2 * own] * (cut > OFTEN_CUT and 2 * own <= most)
        if len(lengths) > 1:
            space.append(Dimension("data.max_length", choices=tuple(map(str, lengths))))
    if way == "head":
        return space
    space += lora_space(config, linears) if way == "lora" else []
    if way in ("lora", "full") and config.model.train is None:
        space.append(Dimension(WAY, choices=("lora", "full")))
    batch = config.train.micro_batch_size
    if config.train.accumulate == 1 and batch >= 8:
        space.append(Dimension("train.micro_batch_size", choices=(str(batch // 2), str(batch))))
    return space


def lora_space(config: Config, linears: Sequence[str]) -> list[Dimension]:
    """Rank and targets of LoRA."""
    assert config.lora is not None
    ranks = sorted({int(rank) for rank in RANKS} | {config.lora.rank})
    space = [Dimension("lora.rank", choices=tuple(map(str, ranks)))]
    own = config.lora.targets
    pair = next((pair for pair in PAIRS if set(pair) <= set(linears)), None)
    targets = ["all-linear"] if own != "all-linear" else []
    if own == "all-linear" and pair is not None:
        targets.append(as_toml(pair))
    if not targets:
        return space
    shown = own if isinstance(own, str) else as_toml(own)
    return [*space, Dimension("lora.targets", choices=(shown, *targets))]


def size_of(space: Sequence[Dimension]) -> int:
    """How many settings there are at most, the recipe's own among them; very many with a range."""
    if any(not dimension.choices for dimension in space):
        return 2**31
    drawn = math.prod(len(d.choices) + (d.key != RATE) for d in space)
    return drawn + any(d.key == RATE for d in space)  # a rate is never left as it was


def as_toml(names: Sequence[str]) -> str:
    """A list of names as it is typed."""
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def read_space(words: Sequence[str]) -> list[Dimension]:
    """The space that words such as "train.lr=1e-5..1e-3,lora.rank=4|8" describe. Raises ValueError
    for a setting that is not there, a range of what is no number, or a value it does not take."""
    parts = [part for word in words for part in split_commas(word)]
    space = [read_dimension(part) for part in parts]
    keys = [dimension.key for dimension in space]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ValueError(f"--space names {twice} twice; give all of its values in one: a|b|c")
    return space


def split_commas(word: str) -> list[str]:
    """Parts between commas that stand in no bracket."""
    parts, depth = [""], 0
    for letter in word:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def read_dimension(part: str) -> Dimension:
    """One setting of --space."""
    key, equals, text = (piece.strip() for piece in part.partition("="))
    settings = list_settings()
    if not equals or not text:
        raise ValueError(
            f"--space {part!r}: write SECTION.KEY=LOW..HIGH or SECTION.KEY=ONE|OTHER, such as "
            "train.lr=1e-5..1e-3"
        )
    if key == WAY:
        choices = tuple(choice.strip() for choice in text.split("|"))
        known = all(way in WAYS or way.startswith("last:") for way in choices)
        if not known:
            raise ValueError(f"--space {part!r}: {WAY} takes {', '.join(WAYS)} and last:N")
        return Dimension(WAY, choices=choices)
    if key not in settings:
        raise ValueError(f"--space {part!r}: {explain_unknown(key)}")
    if not settings[key].trajectory:
        raise ValueError(f"--space {part!r}: {key} changes nothing of what is learned")
    if key in FIXED or key.partition(".")[0] in FIXED:
        raise ValueError(f"--space {part!r}: {key} is the same in all trials: {FIXED_WHY}")
    if ".." in text:
        return read_range(part, key, text)
    choices = tuple(choice.strip() for choice in text.split("|"))
    for choice in choices:
        read_value("--space", part, key, choice)
    return Dimension(key, choices=choices)


FIXED = (
    "run", "task", "data.source", "data.validation", "data.test", "data.subset", "data.split_seed",
    "data.subset_seed", "data.label", "data.labels", "data.kind", "data.group", "data.filter",
    "data.drop_rows", "data.stream", "eval", "distill", "contrast", "bag", "precision.device",
)  # fmt: skip
FIXED_WHY = "they are judged on the same rows by the same figure"


def read_value(option: str, part: str, key: str, text: str) -> Any:
    """The value that a word of --space or --grid gives a setting. Raises ValueError where there is
    no such setting, or it takes no such value."""
    setting = list_settings().get(key)
    if setting is None:
        raise ValueError(f"{option} {part!r}: {explain_unknown(key)}")
    try:
        return parse_text(text, setting.kinds)
    except ValueError as error:
        raise ValueError(
            f"{option} {part!r}: got {text}, {error}; allowed: {setting.allowed}"
        ) from None


def read_range(part: str, key: str, text: str) -> Dimension:
    """LOW..HIGH of a setting that takes numbers."""
    setting = list_settings()[key]
    if not setting.kinds & {"number", "integer"}:
        raise ValueError(
            f"--space {part!r}: {key} takes no numbers ({setting.allowed}); name its values: a|b"
        )
    try:
        low, high = (float(end) for end in text.split(".."))
    except ValueError:
        raise ValueError(f"--space {part!r}: got {text}, expected LOW..HIGH, two numbers") from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"--space {part!r}: got {text}, expected two finite numbers")
    if not low < high:
        raise ValueError(f"--space {part!r}: the range begins at {low:g} and ends at {high:g}")
    return Dimension(key, low, high)


# ---- from a place to a recipe --------------------------------------------------------------------


def settings_at(
    space: Sequence[Dimension], config: Config, place: Place, ranged: bool
) -> dict[str, str]:
    """The settings of a place that differ from the recipe's, as they are typed. `ranged`: the
    rate's range was given, and holds for all ways; else each way has its own."""
    own = way_of(config)
    way, have = str(place.get(WAY) or own), all_settings(config)
    settings: dict[str, str] = {WAY: way} if way != own else {}
    for dimension in space:
        value = place.get(dimension.key)
        if (
            value is None
            or dimension.key == WAY
            or (dimension.key.startswith("lora.") and way != "lora")
        ):
            continue
        if dimension.choices:
            chosen = read_value("--space", dimension.words, dimension.key, str(value))
            if chosen != have.get(dimension.key):
                settings[dimension.key] = str(value)
            continue
        low, high = dimension.low, dimension.high
        if dimension.key == RATE and way != own and not ranged:
            low, high = rate_range(way, None)
        settings[dimension.key] = dimension.number(float(value), low, high)
    if way != own and RATE not in settings:  # the recipe's own is one for another way
        low, high = rate_range(way, None)
        settings[RATE] = f"{math.sqrt(low * high):.3g}"
    return settings


def change(config: Config, settings: Mapping[str, str], name: str = "") -> Config:
    """A recipe with other settings. Raises ConfigError where they do not go together."""
    tables = config.model_dump(exclude_none=True)
    way = settings.get(WAY)
    if way is not None:
        for method in METHODS:
            tables.pop(method, None)
        tables["model"].pop("train", None)
        if way in ("lora", "adapter"):
            tables[way] = dict(LORA) if way == "lora" else {}
        else:
            tables["model"]["train"] = "all" if way == "full" else way
        tables["train"].pop("head_lr", None)
    words = [f"{key}={value}" for key, value in settings.items() if key != WAY]
    words += [f"run.name={name}"] if name else []
    return parse_config(tables, "a trial", words)
