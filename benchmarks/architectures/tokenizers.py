"""Tokenizers of a few hundred tokens, trained in-process: one a kind, as the architectures' own."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, WordPieceTrainer
from transformers import CanineTokenizer, PerceiverTokenizer, PreTrainedTokenizerFast

WORDS = [
    "good", "great", "moving", "funny", "superb", "charming", "bad", "awful", "boring", "stupid",
    "poor", "tedious", "the", "film", "was", "a", "story", "of", "people", "in", "town", "and",
    "music", "number",
]  # fmt: skip
KIND = {
    "roberta": [
        "bart", "bigbird_pegasus", "biogpt", "camembert", "data2vec-text", "esm", "esmc", "gte",
        "ibert", "jina_embeddings_v3", "layoutlmv3", "lilt", "longformer", "luke", "markuplm",
        "mbart", "mpnet", "mra", "mvp", "opt", "plbart", "roberta", "roberta-prelayernorm",
        "xlm-roberta", "xlm-roberta-xl", "xmod",
    ],
    "gpt2": [
        "bloom", "ctrl", "falcon", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj",
        "mpt", "olmo", "openai-gpt", "phi", "qwen2", "qwen2_moe", "qwen3", "qwen3_5",
        "qwen3_5_text", "qwen3_moe", "qwen3_next", "stablelm", "starcoder2",
    ],
    "end": ["mt5", "reformer", "t5", "t5gemma", "t5gemma2", "umt5", "xlnet"],
    "canine": ["canine"],
    "perceiver": ["perceiver"],
    "wordpiece": [
        "albert", "bert", "big_bird", "cohere_compass_text", "convbert", "deberta", "deberta-v2",
        "distilbert", "electra", "ernie", "eurobert", "flaubert", "fnet", "funnel", "layoutlm",
        "layoutlmv2", "megatron-bert", "mobilebert", "modernbert", "modernbert-decoder",
        "modernvbert", "nomic_bert", "nystromformer", "rembert", "roc_bert", "roformer",
        "squeezebert", "tapas", "ultrabert", "ultravbert", "xlm", "yoso",
    ],
}  # fmt: skip


def training_texts() -> Iterable[str]:
    """A few hundred short texts."""
    return [f"the film was a {word} story of people in town and music {i}"
            for i in range(100) for word in WORDS]  # fmt: skip


def kind_of(model_type: str) -> str:
    """The kind of tokenizer that an architecture's published models come with; "llama", a first
    token and no pad token, where KIND has no row."""
    return next((kind for kind, types in KIND.items() if model_type in types), "llama")


@cache
def make_tokenizer(kind: str) -> Any:
    """A tokenizer of one kind: wordpiece, roberta, gpt2 (no special tokens around a text, no pad
    token), llama (a first token, no pad token), end (a last token), canine (characters) or
    perceiver (bytes)."""
    if kind == "wordpiece":
        return _wordpiece()
    if kind == "canine":
        return CanineTokenizer()
    if kind == "perceiver":
        return PerceiverTokenizer()
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if kind in ("gpt2", "llama"):
        special = ["<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=360, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(training_texts(), trainer)
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    if kind == "roberta":
        raw.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        names |= {"cls_token": "<s>", "sep_token": "</s>"}
    if kind == "llama":
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
        )
    if kind == "end":
        raw.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)]
        )
    if kind in ("roberta", "end"):
        names |= {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, **names)


def _wordpiece() -> Any:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    raw.train_from_iterator(training_texts(), trainer)
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip


def special_ids(tokenizer: Any) -> dict[str, int | None]:
    """The ids of a tokenizer's special tokens, by their names in a config; of a pad token that is
    not there, None."""
    first = tokenizer.cls_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    last = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    ids = {"cls": first, "sep": last, "bos": first, "eos": last}
    return {f"{name}_token_id": i for name, i in {**ids, "pad": tokenizer.pad_token_id}.items()}
