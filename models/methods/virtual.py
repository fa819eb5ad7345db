"""Tokens that no text holds: how they get in front of a batch, and their files in PEFT's layout.

adapter_config.json         num_virtual_tokens, token_dim, num_layers, ...
adapter_model.safetensors   prompt_embeddings, and what trains whole beside them
"""

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from files.read import read_json
from models.architectures import longest_text, reads_end
from models.heads import Classifier, is_language_model, peft_root, transformers_model
from models.load import read_tensors
from models.methods.method import added_modules, plain_name
from models.methods.peft_files import modules_to_save, save_adapter
from models.methods.trial import trial

ROOT = "base_model."  # PEFT wraps nothing for these methods, so there is no "model." behind it
PROMPT = "prompt_embeddings"
TRIED = 16  # tokens


def columns_before(mask: Tensor) -> Tensor:
    """(B, 1): how many columns of padding stand before the text, by a mask (B, T)."""
    return (mask.cumsum(1) == 0).sum(1, keepdim=True)


def lengthen(inputs: dict[str, Any], tokens: int, vocabulary: int) -> dict[str, Any]:
    """A model's inputs, (B, T) each, with virtual tokens before each row's first real one, (B, P +
    T): ids from `vocabulary` on, mask 1, token type 0, and where positions are given the first P.
    Nothing is asked of a device."""
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    lead, width = columns_before(mask), ids.shape[1]
    place = torch.arange(tokens + width, device=ids.device)  # (P + T,)
    virtual = (place >= lead) & (place < lead + tokens)  # (B, P + T)
    before = torch.where(place < lead, place, place - tokens).clamp(0, width - 1)
    longer = {**inputs, "attention_mask": mask}
    if inputs.get("position_ids") is not None:
        longer["position_ids"] = inputs["position_ids"].expand_as(ids) + tokens
    fillers: dict[str, Any] = {
        "input_ids": place - lead + vocabulary,
        "attention_mask": 1,
        "token_type_ids": 0,
        "position_ids": place - lead,
    }
    for name, filler in fillers.items():
        if longer.get(name) is not None:
            longer[name] = torch.where(virtual, filler, longer[name].gather(1, before))
    return longer


def lengthen_step(inputs: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The inputs of a model that goes on from kept keys and values, among them those of the virtual
    tokens: only what is said of those that were read, mask (B, S) and positions (B, T), moves."""
    longer = dict(inputs)
    if (mask := inputs.get("attention_mask")) is not None:
        lead = columns_before(mask)
        place = torch.arange(tokens + mask.shape[1], device=mask.device)  # (P + S,)
        longer["attention_mask"] = (place >= lead).to(mask.dtype)  # (B, P + S)
    if inputs.get("position_ids") is not None:
        longer["position_ids"] = inputs["position_ids"] + tokens
    return longer


def goes_on_from(inputs: dict[str, Any]) -> int:
    """How many tokens a model that is called so has read before: those whose keys are kept."""
    kept = inputs.get("past_key_values")
    return 0 if kept is None else int(kept.get_seq_length())


def named_inputs(inner: nn.Module, args: tuple, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a call by their names: some language models give the first ones without."""
    names = inspect.signature(inspect.unwrap(type(inner).forward)).parameters
    return {**dict(zip(list(names)[1:], args, strict=False)), **inputs}


def shorten(hidden: Tensor, mask: Tensor, tokens: int) -> Tensor:
    """Hidden states (B, P + T, D) less those of virtual tokens, (B, T, D), by the mask (B, P + T)
    of both."""
    place = torch.arange(mask.shape[1] - tokens, device=mask.device)  # (T,)
    own = torch.where(place < columns_before(mask), place, place + tokens)  # (B, T)
    return hidden.gather(1, own.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))


def put_in_front(model: nn.Module, tokens: int, vocabulary: int) -> None:
    """From now on the transformers model inside is given `tokens` more before each text; a head of
    ours, and that of a language model, is given what became of the text's own. As hooks, for they
    go with any forward that a fast path or models/apart.py puts in place."""
    inner = asked_model(model)
    longer = partial(_lengthen_call, tokens, vocabulary)
    inner.register_forward_pre_hook(longer, with_kwargs=True)
    if isinstance(model, Classifier) or is_language_model(model):
        inner.register_forward_hook(partial(_shorten_output, tokens), with_kwargs=True)


def asked_model(model: nn.Module) -> Any:
    """The transformers model that is asked of each text: of a language model the decoder, which
    hidden_of asks without the head, and some heads without the rest of the backbone (OPT)."""
    inner: Any = transformers_model(model)
    return inner.get_decoder() if is_language_model(model) else inner


def _lengthen_call(
    tokens: int, vocabulary: int, inner: nn.Module, args: tuple, inputs: dict[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    inputs = named_inputs(inner, args, inputs)
    if goes_on_from(inputs):
        return (), lengthen_step(inputs, tokens)
    return (), lengthen(inputs, tokens, vocabulary)


def _shorten_output(
    tokens: int, inner: nn.Module, args: tuple, inputs: dict[str, Any], output: Any
) -> Any:
    mask, hidden = inputs["attention_mask"], output.last_hidden_state
    if mask is not None and hidden.shape[1] == mask.shape[1]:  # not of one that goes on
        output.last_hidden_state = shorten(hidden, mask, tokens)
    return output


def try_model(model: nn.Module, section: str, positions: int) -> None:
    """Raises ValueError where a model does not run with what a method just put in, which takes so
    many positions."""
    inner = transformers_model(model)
    longest = longest_text(inner)
    width = TRIED if longest is None else max(1, min(TRIED, longest - positions))
    ids = torch.full((2, width), 5)  # (B, T)
    if reads_end(inner):
        ids[:, -1] = inner.config.eos_token_id
    complaint = f"{section}: {inner.config.model_type} does not run with it ({{}}); take [lora]"
    with trial(model, complaint):
        model(input_ids=ids, attention_mask=torch.ones_like(ids))


# In files


def write_virtual(
    model: nn.Module, tensor: Tensor, config: dict[str, Any], base: str | None,
    revision: str | None, folder: Path,
) -> None:  # fmt: skip
    """Write what virtual tokens learned, tensor (P, numbers of each), and what trains whole beside
    them, in float32. `config` is what adapter_config.json says of the method itself."""
    root = peft_root(model)
    whole = modules_to_save(model)
    tensors = {PROMPT: tensor}
    for name in whole:
        for inner, value in model.get_submodule(name).state_dict().items():
            tensors[f"{ROOT}{name.removeprefix(root)}.{inner}"] = value
    about = transformers_model(model).config.get_text_config()
    config = {
        "num_layers": getattr(about, "num_hidden_layers", None),
        "num_attention_heads": getattr(about, "num_attention_heads", None),  # FNet has none
        "num_transformer_submodules": 1,
        **config,
        "num_virtual_tokens": len(tensor),
        "modules_to_save": [name.removeprefix(root) for name in whole] or None,
    }
    save_adapter(model, tensors, config, base, revision, folder)


@torch.no_grad()
def read_virtual(
    model: nn.Module, peft_type: str, folder: Path, shape: torch.Size
) -> tuple[Tensor, set[str]]:
    """What virtual tokens learned, of this shape, from files of ours or of PEFT's, and the names of
    the parameters of the model itself that were filled from there. Raises ValueError for what does
    not fit this model."""
    config = read_json(folder / "adapter_config.json")
    if config.get("peft_type") != peft_type or config.get("prefix_projection"):
        what = "prefix_projection" if config.get("prefix_projection") else config.get("peft_type")
        raise ValueError(f"the adapter in {folder} is of {what!r}; expected {peft_type}")
    root = peft_root(model)
    added, places = added_modules(model), {}
    for name, parameter in [*model.named_parameters(), *model.named_buffers()]:
        if (plain := plain_name(name, added)) is not None:
            places[ROOT + plain.removeprefix(root)] = (name, parameter)
    tensors = read_tensors(folder / "adapter_model.safetensors")
    if PROMPT not in tensors:
        raise ValueError(f"the adapter in {folder} has no {PROMPT!r}")
    learned = tensors.pop(PROMPT)
    if learned.shape != shape:
        raise ValueError(
            f"the adapter in {folder} has {PROMPT!r} of shape {list(learned.shape)}; this model's "
            f"is {list(shape)}"
        )
    for key, tensor in tensors.items():
        if key not in places or places[key][1].shape != tensor.shape:
            raise ValueError(
                f"the adapter in {folder} has {key!r} of shape {list(tensor.shape)}, which this "
                "model has not"
            )
        places[key][1].copy_(tensor)
    return learned, {places[key][0] for key in tensors}
