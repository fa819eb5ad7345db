"""The arguments of a model, as one frozen dataclass that travels in JSON with every export."""

import json
import math
from dataclasses import MISSING, asdict, dataclass, field, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from files.read import MOST_BYTES
from models.code import code_file
from models.limits import MOST_LABELS
from models.methods import METHODS, Method, OwnMethod
from models.trainable import NOTHING, last_layers

KINDS = ("single", "multi", "regression")  # of labels: one class, several at once, a number
CHAT = "chat"  # of a language model, which has no labels


@dataclass(frozen=True, kw_only=True)
class ModelArgs:
    """All that says what model a run trains: [model], [head], the table of its method if it has
    one, and the labels' side of the data. `allow_code` and `allow_network` (to ask a hub for a
    run's base) are permissions and no properties: they are never stored.

    A regression answers in deviations from a mean: answer * target_deviation + target_mean is in
    the labels' own unit. Records from before these two have neither, and models with 0 and 1.

    A language model is of the kind "chat": it has its own head, and neither labels nor a target."""

    source: str
    revision: str | None = None
    dropout: float | None = None
    train: str | None = None
    activation_checkpointing: bool = False
    head_kind: str = "native"
    head_pool: str | None = None
    head_dropout: float | None = None
    head_args: dict[str, Any] = field(default_factory=dict)
    window_pool: Literal["mean", "max"] | None = None
    method: Method | None = None
    num_labels: int = 0
    label_names: tuple[str, ...] = ()
    kind: str = "single"
    target_mean: float = 0.0
    target_deviation: float = 1.0
    allow_code: bool = False
    allow_network: bool = False

    @property
    def trains(self) -> str:
        """What trains beside a method's own parameters and whatever is newly initialised: "all",
        "head", "bias", "last:N" or "nothing". Where `train` says nothing a method leaves the
        backbone frozen, and a language model's head, and without one all of it trains. Decided here
        alone."""
        beside = NOTHING if self.kind == CHAT else "head"
        return self.train or (beside if self.method else "all")

    @property
    def form(self) -> str:
        """Which of transformers' classes it is: "language" (…ForCausalLM), "classifier", or the
        bare "backbone" below a head of ours."""
        if self.kind == CHAT:
            return "language"
        return "classifier" if self.head_kind == "native" else "backbone"

    @property
    def method_code(self) -> str | None:
        """The user's own class that the method runs, as "my_file.py:MyClass"."""
        return None if self.method is None else self.method.code

    @property
    def runs_code(self) -> bool:
        """Whether the model runs a file of the user's own, which --allow-code allows."""
        return code_file(self.head_kind) is not None or self.method_code is not None


def args_to_json(args: ModelArgs) -> dict[str, Any]:
    """The arguments as JSON values; args_from_json gives equal ones back."""
    values = json.loads(json.dumps(asdict(args)))
    if args.method is not None:
        values["method"] = {"kind": args.method.kind, **values["method"]}
    return {k: v for k, v in values.items() if k not in ("allow_code", "allow_network")}


def args_from_json(values: Any, allow_code: bool = False, allow_network: bool = False) -> ModelArgs:
    """The arguments that args_to_json wrote. Raises ValueError for values of another kind."""
    if isinstance(values, dict) and "lora" in values:  # as records said before there were others
        rest = {k: v for k, v in values.items() if k != "lora"}
        lora = values["lora"]
        values = rest | {"method": {"kind": "lora", **lora} if isinstance(lora, dict) else lora}
    values = dict(_checked(ModelArgs, values, "model"))
    values["method"] = _method_from_json(values.get("method"))
    args = ModelArgs(**values, allow_code=allow_code, allow_network=allow_network)
    check_model_args(args)
    return args


def _method_from_json(values: Any) -> Method | None:
    if values is None:
        return None
    kind = values.get("kind") if isinstance(values, dict) else None
    if isinstance(kind, str) and code_file(kind):  # a user's own, by its file
        return OwnMethod(**_checked(OwnMethod, values, "method"))
    if kind not in METHODS:
        raise ValueError(f"method is {values!r:.100}; expected one of {', '.join(METHODS)}")
    rest = {key: value for key, value in values.items() if key != "kind"}
    return METHODS[kind](**_checked(METHODS[kind], rest, kind))


def _checked(cls: Any, values: Any, name: str) -> dict[str, Any]:
    """A JSON object's values for the fields of a dataclass, lists as tuples. Raises ValueError
    where one is missing, unknown or of another type."""
    if not isinstance(values, dict):
        raise ValueError(f"{name} is {values!r:.100}; expected an object")
    types = get_type_hints(cls)
    hints = {f.name: types[f.name] for f in fields(cls) if not f.name.startswith("allow_")}
    needed = {f.name for f in fields(cls) if f.default is f.default_factory is MISSING}
    if wrong := sorted((values.keys() - hints.keys()) | (needed - values.keys())):
        raise ValueError(f"{name}.{wrong[0]} is {'unknown' if wrong[0] in values else 'missing'}")
    checked = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    for key, value in checked.items():
        if key != "method" and not _fits(value, hints[key]):
            raise ValueError(f"{name}.{key} is {values[key]!r:.100}; expected {hints[key]}")
    return checked


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value, lists as tuples, is of the type of a field."""
    outer, inner = get_origin(hint) or hint, get_args(hint)
    if outer in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if outer is Literal:
        return value in inner
    if outer is tuple:
        kinds = inner[:1] * len(value) if inner[-1] is ... and isinstance(value, tuple) else inner
        return (
            isinstance(value, tuple) and len(value) == len(kinds) and all(map(_fits, value, kinds))
        )
    if outer is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, outer) and not (outer is int and isinstance(value, bool))


def check_model_args(args: ModelArgs) -> None:
    """Raises ValueError for arguments that contradict each other or are out of range."""
    if args.kind == CHAT:
        _check_language(args)
    elif args.kind not in KINDS:
        raise ValueError(f"the labels' kind is {args.kind!r}; expected one of {', '.join(KINDS)}")
    if args.num_labels > MOST_LABELS:
        raise ValueError(f"num_labels is {args.num_labels:,}; at most {MOST_LABELS:,} are possible")
    names = len(json.dumps(args.label_names))
    if names > MOST_BYTES // 8:  # some files hold each name several times
        raise ValueError(
            f"the names of the {args.num_labels:,} labels take {names:,} bytes; at most "
            f"{MOST_BYTES // 8:,} are possible. Is the label column one of texts?"
        )
    least = 0 if args.kind == CHAT else 1
    if args.num_labels < least or (args.kind == "regression" and args.num_labels != 1):
        raise ValueError(f"num_labels is {args.num_labels}, which does not go with {args.kind!r}")
    if args.label_names and len(args.label_names) != args.num_labels:
        raise ValueError(f"{len(args.label_names)} label names for {args.num_labels} labels")
    if not (math.isfinite(args.target_mean) and 0 < args.target_deviation < math.inf):
        raise ValueError(
            f"target_mean is {args.target_mean} and target_deviation {args.target_deviation}; "
            "expected finite numbers, the deviation above 0"
        )
    for name, value in (("model.dropout", args.dropout), ("head.dropout", args.head_dropout)):
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"{name} is {value}; expected 0 <= dropout < 1")
    if args.head_kind == "native" and (args.head_pool is not None or args.head_args):
        raise ValueError(
            "head.pool and [head.args] belong to heads of ours; a native head has its own pooling: "
            "unset them, or use head.kind = 'linear'"
        )
    if args.head_kind == "native" and args.window_pool is not None:
        raise ValueError(
            'data.long = "chunks" joins the vectors of a text\'s windows, and a native head shows '
            "none: use head.kind = 'linear' or 'mlp'"
        )
    if args.method is not None:
        args.method.check()
        if args.train == "all":
            raise ValueError(
                f"model.train = 'all' beside [{type(args.method).kind}]: unset one of them"
            )
        if args.train == "bias" and not args.method.beside_biases:
            raise ValueError(
                f"model.train = 'bias' beside [{type(args.method).kind}], whose file has no place "
                "for single biases: unset one of them"
            )
    last_layers(args.train)


def _check_language(args: ModelArgs) -> None:
    """Raises ValueError for what a language model has not."""
    if args.head_kind != "native":
        raise ValueError(
            f"head.kind is {args.head_kind!r}, but a language model answers by its own head, over "
            "all words: use head.kind = 'native'"
        )
    if args.head_dropout is not None:
        raise ValueError(
            f"head.dropout is {args.head_dropout}, but a language model's head has none: unset it"
        )
    if args.num_labels or args.label_names or args.window_pool:
        raise ValueError("a language model has neither labels nor windows; leave them out")
