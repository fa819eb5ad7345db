"""A backbone with a head of ours as sentence-transformers reads a model: encode() gives the logits.

    .                   the backbone as AutoModel opens it, with its tokenizer    Transformer
    1_Pooling/          mean, cls or last token                                   Pooling
    2_Dense/ 3_Dense/   the layers of the head                                    Dense

The names of classes and settings are those that its versions have read since 2.0.
"""

import json
from inspect import signature
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from models.elsewhere.merged import merged, tokenizer_of
from models.export import save_transformers
from models.heads import Classifier, LinearHead, MLPHead, transformers_model

POOLING = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens",
         "weightedmean_tokens", "lasttoken")  # fmt: skip


def why_no_sentences(model: nn.Module) -> str | None:
    """Why a model's head is no pooling and linear layers; None where it is."""
    if not isinstance(model, Classifier):
        return "its head is transformers' own"
    if not isinstance(model.head, LinearHead | MLPHead):
        return "its head is code of its own"
    return None


def write_sentences(
    model: nn.Module, tokenizer: Any, folder: Path, max_length: int, side: str
) -> float:
    """Write a model whose head why_no_sentences passes, its method merged; the drift. Raises
    ValueError where it cannot be merged."""
    assert isinstance(model, Classifier)
    head, backbone = model.head, transformers_model(model)
    layers: list[tuple[nn.Linear, nn.Module]] = [(head.out, nn.Identity())]
    if isinstance(head, MLPHead):
        layers.insert(0, (head.dense, head.activation))
    with merged(model) as drift:
        save_transformers(backbone, folder)
    tokenizer_of(tokenizer, max_length, side).save_pretrained(folder)
    bert: dict[str, Any] = {"max_seq_length": max_length, "do_lower_case": False}
    if lacks_pooler(backbone):
        bert["model_args"] = {"add_pooling_layer": False}
    write_json(folder / "sentence_bert_config.json", bert)
    write_json(folder / "config_sentence_transformers.json", {"model_type": "SentenceTransformer"})
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    mode = POOLING[head.pool]
    pooling = {f"pooling_mode_{name}": name == mode for name in MODES}
    (folder / "1_Pooling").mkdir()
    size = layers[0][0].in_features
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": size} | pooling)
    for number, (layer, activation) in enumerate(layers, start=2):
        modules.append((f"{number}_Dense", "Dense"))
        write_dense(layer, activation, folder / f"{number}_Dense")
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", listed)
    return drift


def lacks_pooler(backbone: nn.Module) -> bool:
    """Whether a backbone was built without the pooling layer of its class, which no head of ours
    reads: unless from_pretrained hears of it, it makes one at random and reports it as missing."""
    takes = "add_pooling_layer" in signature(type(backbone).__init__).parameters
    return takes and getattr(backbone, "pooler", None) is None


def write_dense(layer: nn.Linear, activation: nn.Module, folder: Path) -> None:
    """A linear layer and the function behind it."""
    folder.mkdir()
    kind = type(activation)
    config = {
        "in_features": layer.in_features, "out_features": layer.out_features,
        "bias": layer.bias is not None, "activation_function": f"{kind.__module__}.{kind.__name__}",
    }  # fmt: skip
    write_json(folder / "config.json", config)
    state = {
        f"linear.{n}": p.detach().cpu().contiguous().clone() for n, p in layer.named_parameters()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def write_json(path: Path, value: Any) -> None:
    """One of its settings files."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
