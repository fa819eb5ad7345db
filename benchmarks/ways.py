"""What benchmarks/methods.py compares: a recipe each, and the rates that are tried for it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    """A recipe of configs/ with overrides, and the peak learning rates tried: as many for each.
    `line` says what it is, in the table and in the plot's legend."""

    line: str
    recipe: str
    rates: tuple[float, float, float]
    overrides: tuple[str, ...] = ()
    unset: tuple[str, ...] = ()


LORA = (1e-3, 3e-3, 1e-2)
WAYS = {
    "features": Way(
        "the head alone, on kept vectors",
        "imdb_features",
        (3e-3, 1e-2, 3e-2),
        ("train.epochs=30",),
        ("eval.patience",),
    ),
    "probe": Way(
        "linear probe: the head at its optimum",
        "imdb_probe",
        (2e-2, 5e-2, 1e-1),
        ("train.epochs=200",),
    ),
    "last1": Way(
        "last layer and head, on kept states",
        "imdb_last1",
        (1e-4, 3e-4, 1e-3),
        (),
        ("train.head_lr",),
    ),
    "full": Way("every weight", "imdb_quick", (3e-5, 1e-4, 3e-4), ("model.train=all",), ("lora",)),
    "bias": Way("every bias (BitFit)", "imdb_bias", LORA),
    "contrast": Way(
        "every weight, from pairs of rows",
        "imdb_contrast",
        (3e-5, 1e-4, 3e-4),
        ("contrast.pairs=400", "train.epochs=1"),  # as many rows as two epochs of the others
    ),
    "lora": Way("LoRA on query and value", "imdb_quick", LORA),
    "rslora": Way("rsLoRA", "imdb_quick", LORA, ("lora.variant=rslora",)),
    "loraplus": Way("LoRA+", "imdb_loraplus", LORA),
    "dora": Way("DoRA", "imdb_dora", LORA),
    "pissa": Way("PiSSA", "imdb_quick", (3e-4, 1e-3, 3e-3), ("lora.init=pissa",)),
    "adapter": Way("bottleneck adapters", "imdb_adapter", LORA),
    "prompt": Way("soft prompt", "imdb_prompt", (3e-2, 1e-1, 3e-1)),
    "prefix": Way("prefix of keys and values", "imdb_prefix", (1e-2, 3e-2, 1e-1)),
    "ngrams": Way(
        "bag of n-grams, nothing pretrained",
        "imdb_ngrams",
        (1e-2, 3e-2, 1e-1),
        ("train.epochs=10",),
    ),
}
