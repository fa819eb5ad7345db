"""LoRA's files: does an adapter that was saved fit a model's layers? What PEFT would compute from
adapter_config.json has to be what they compute."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from files.read import read_json
from models.heads import head_modules, peft_root
from models.methods.lora_layers import LoRALinear, peft_keys_of
from models.methods.method import added_modules
from models.methods.peft_files import read_adapter
from models.names import is_below

OWN_TYPE = "OPENLOOP"  # the peft_type of a variant that PEFT has no form of: PEFT refuses it
# What changes the arithmetic of an adapter in a way that no layer of ours computes.
UNSUPPORTED = (
    "lora_bias", "layer_replication", "target_parameters", "trainable_token_indices", "use_qalora",
    "use_bdlora", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config",
)  # fmt: skip
UNCHANGED = (True, False, None, "gaussian", "eva", "orthogonal")  # inits that leave the base alone
BIASES = ("none", "all", "lora_only")  # which of them train
LONGEST = 200  # characters of a pattern
# Each choice of a pattern multiplies the ways to match a name, a repeated group without bounds:
# with more of them one name of forty letters takes longer than anybody waits.
LITERAL = re.compile(r"\\.|\[\^?\]?[^\]]*\]", re.DOTALL)  # an escaped sign, a class
REPEATED = re.compile(r"\)[*+{]")
CHOICE = re.compile(r"\((?:\?[:=!<>])?|[*+?{]\??")
MOST_CHOICES = 3


def check_patterns(setting: str, patterns: Mapping[str, Any]) -> None:
    """Raises ValueError for what is no regular expression, and for one that can take for ever: with
    a repeated group, or more than MOST_CHOICES groups and repetitions."""
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"{setting}: {pattern!r:.100} is no pattern: {error}") from None
        plain = LITERAL.sub("x", pattern)
        choices = len(CHOICE.findall(plain))
        if len(pattern) > LONGEST or REPEATED.search(plain) or choices > MOST_CHOICES:
            raise ValueError(
                f"{setting}: {pattern!r:.100}; expected at most {LONGEST} characters, no "
                f"repetition of a group, and at most {MOST_CHOICES} groups and repetitions: name "
                "the layers, or use several patterns"
            )


def pattern_of(patterns: Mapping[str, Any], name: str) -> str | None:
    """The first pattern that a layer's name ends in on a dot boundary, as PEFT matches it."""
    return next((p for p in patterns if re.match(rf"(.*\.)?({p})$", name)), None)


def biases_of(model: nn.Module, which: str) -> list[str]:
    """Names of the biases that "lora_only" (of adapted layers) or "all" (but the head's) means."""
    heads, added = head_modules(model), added_modules(model)
    names = [n for n, _ in model.named_parameters() if n.rpartition(".")[2] == "bias"]
    if which == "lora_only":
        return [n for n in names if n.removesuffix(".base.bias") in added]
    return [n for n in names if which == "all" and not is_below(n, heads)]


def load_adapter(model: nn.Module, folder: str | Path) -> set[str]:
    """Copy an adapter in PEFT's layout (ours or one saved by PEFT) into a model with the same
    layers adapted; returns the names of the parameters and buffers that were filled.

    Raises ValueError when the adapter uses what this model's layers do not compute, was trained
    with another scaling, names a tensor the model has not, or leaves one of its adapters unfilled.
    """
    layers = {n: m for n, m in added_modules(model).items() if isinstance(m, LoRALinear)}
    root = peft_root(model)
    config = read_json(Path(folder) / "adapter_config.json")
    _check_kind(config, list(layers.values()), folder)
    _check_scalings(config, {n.removeprefix(root): m for n, m in layers.items()}, folder)
    _check_bias(config, model, folder)
    return read_adapter(model, Path(folder))


def _check_kind(config: dict[str, Any], layers: list[LoRALinear], folder: str | Path) -> None:
    used = [name for name in UNSUPPORTED if config.get(name)]
    kinds = {type(layer) for layer in layers}
    own = any(peft_keys_of(kind) is None for kind in kinds)
    if config.get("peft_type") != (OWN_TYPE if own else "LORA"):
        used = [f"peft_type {config.get('peft_type')!r}"]
    if own and {config.get("openloop_variant")} != {kind.__name__ for kind in kinds}:
        used = [f"the variant {config.get('openloop_variant')!r}"]
    for kind in kinds:
        says = peft_keys_of(kind) or {}
        if bool(config.get("use_dora")) != bool(says.get("use_dora")):
            used.append(f"use_dora = {config.get('use_dora', False)}")
    if used:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(
            f"the adapter in {folder} uses {', '.join(used)}; this model's layers are {names}"
        )


def _check_scalings(
    config: dict[str, Any], layers: Mapping[str, LoRALinear], folder: str | Path
) -> None:
    ranks, alphas = (config.get(f"{what}_pattern") or {} for what in ("rank", "alpha"))
    for what, patterns in (("rank", ranks), ("alpha", alphas)):
        if not isinstance(patterns, dict):
            raise ValueError(f"the adapter in {folder} has {what}_pattern = {patterns!r:.100}")
        check_patterns(f"the adapter in {folder} has {what}_pattern", patterns)
    for name, layer in layers.items():
        r = ranks.get(pattern_of(ranks, name), config.get("r"))
        alpha = alphas.get(pattern_of(alphas, name), config.get("lora_alpha"))
        if not isinstance(r, int) or r < 1 or not isinstance(alpha, int | float):
            raise ValueError(f"the adapter in {folder} has r = {r!r} and lora_alpha = {alpha!r}")
        rank, init = len(layer.lora_A), config.get("init_lora_weights", True)
        start = layer.start_A is not None
        # with PiSSA either a plain adapter of twice the rank, or PEFT's own form on a base that
        # is less the start: each works that out of the same weight
        fits = init == "pissa" if start and r == rank else init in UNCHANGED
        if not fits or r != rank * (2 if start and init != "pissa" else 1):
            ours = f"rank {rank}" + (" with PiSSA" if start else "")
            raise ValueError(
                f"the adapter in {folder} has r = {r} and init_lora_weights = {init!r} for {name}; "
                f"this model has {ours}"
            )
        scaling = alpha / (r**0.5 if config.get("use_rslora") else r)
        if abs(scaling - layer.scaling) > 1e-9 * layer.scaling:
            raise ValueError(
                f"the adapter in {folder} has scaling {scaling} for {name}; this model has "
                f"{layer.scaling}: alpha/rank, or with rslora alpha/sqrt(rank)"
            )


def _check_bias(config: dict[str, Any], model: nn.Module, folder: str | Path) -> None:
    which = str(config.get("bias", "none"))
    frozen = [n for n in biases_of(model, which) if not model.get_parameter(n).requires_grad]
    if frozen or which not in BIASES:
        raise ValueError(
            f"the adapter in {folder} has bias = {which!r}; this model keeps {len(frozen)} of "
            "these biases frozen, and would lose them where it is saved: see lora.bias"
        )
