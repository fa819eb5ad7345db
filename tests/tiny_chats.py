"""A tiny language model with a byte-level tokenizer, and conversations, for tests of whole runs."""

import json

END = "<|endoftext|>"
QUESTIONS = ["how are you", "what is it", "do you like the film", "tell me a story", "and then"]
ANSWERS = ["fine", "it is a film about people", "yes I do", "no", "a story of a town and its music"]


def chats(count):
    """So many conversations of one to four exchanges, all different."""
    return [
        {
            "messages": [
                {"role": role, "content": f"{texts[(i * 3 + j) % len(texts)]} {i}"}
                for j in range(1 + i % 4)
                for role, texts in (("user", QUESTIONS), ("assistant", ANSWERS))
            ]
        }
        for i in range(count)
    ]


def write_chats(path, count):
    """The same as JSON lines; the file's name."""
    path.write_text("\n".join(map(json.dumps, chats(count))), encoding="utf-8")
    return str(path)


def write_tiny_chat(folder):
    """A folder with a random GPT-2 of two layers, without dropout; no chat template."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    raw = ByteLevelBPETokenizer()
    texts = [m["content"] for chat in chats(40) for m in chat["messages"]]
    raw.train_from_iterator(texts, 400, show_progress=False, special_tokens=[END])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw._tokenizer, eos_token=END, pad_token=END, model_max_length=64
    )
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.3,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
