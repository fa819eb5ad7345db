"""What benchmarks/methods.py compares: a recipe each, and the rates that are tried for it."""

from dataclasses import dataclass

LINE = {  # one line a name in README and in the plot's legend
    "features": "the head alone, on kept vectors",
    "last1": "last layer and head, on kept states",
    "full": "every weight",
    "lora": "LoRA on query and value",
    "lora_all": "LoRA on all linear layers",
    "rslora": "rsLoRA",
    "loraplus": "LoRA+",
    "dora": "DoRA",
    "pissa": "PiSSA",
    "adapter": "bottleneck adapters",
    "prompt": "soft prompt",
    "prefix": "prefix of keys and values",
}


@dataclass(frozen=True)
class Way:
    """A recipe of configs/ with overrides, and the peak learning rates tried: as many for each."""

    recipe: str
    rates: tuple[float, float, float]
    overrides: tuple[str, ...] = ()
    unset: tuple[str, ...] = ()


LORA = (1e-3, 3e-3, 1e-2)
ALL = ("lora.targets=all-linear",)
WAYS = {
    "features": Way("imdb_features", (3e-3, 1e-2, 3e-2), ("train.epochs=30",), ("eval.patience",)),
    "last1": Way("imdb_last1", (1e-4, 3e-4, 1e-3), (), ("train.head_lr",)),
    "full": Way("imdb_quick", (3e-5, 1e-4, 3e-4), ("model.train=all",), ("lora",)),
    "lora": Way("imdb_quick", LORA),
    "lora_all": Way("imdb_quick", LORA, ALL),
    "rslora": Way("imdb_quick", LORA, (*ALL, "lora.variant=rslora")),
    "loraplus": Way("imdb_loraplus", LORA, ALL),
    "dora": Way("imdb_dora", LORA, ALL),
    "pissa": Way("imdb_quick", (3e-4, 1e-3, 3e-3), (*ALL, "lora.init=pissa")),
    "adapter": Way("imdb_adapter", LORA),
    "prompt": Way("imdb_prompt", (3e-2, 1e-1, 3e-1)),
    "prefix": Way("imdb_prefix", (1e-2, 3e-2, 1e-1)),
}
