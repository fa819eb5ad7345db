"""Tiny random models of three architectures, saved as folders with tokenizers."""

import copy
import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

QUESTIONS = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.masked_select")

CONFIGS = {
    "bert": ("BertConfig", {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}),
    "distilbert": ("DistilBertConfig", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}),
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "llama": (
        "LlamaConfig",
        {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0},
    ),
    "roberta": (
        "RobertaConfig",
        {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0},
    ),
}
BERT_LIKE = {  # encoders of BERT's layout that no folder is made for
    "hidden_size": 16, "embedding_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 64, "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}  # fmt: skip
FAMILIES = {"albert": "Albert", "electra": "Electra", "xlm-roberta": "XLMRoberta"}
LLAMA_LIKE = {  # decoders of Llama's layout that no folder is made for
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 8, "intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
KIN_OF_LLAMA = {"gemma": "Gemma", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
TARGETS = {
    "bert": ("query", "value"),
    "distilbert": ("q_lin", "v_lin"),
    "gpt2": ("c_attn", "mlp.c_proj"),
    "llama": ("q_proj", "v_proj"),
    "roberta": ("query", "value"),
}

ROTARY = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
    "initializer_range": 0.3,
}  # fmt: skip
CHATS = {  # language models: type and what is its own
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "llama": ("llama", {"tie_word_embeddings": False}),
    "smollm": ("llama", {"tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": 4}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {"sliding_window": 4, "query_pre_attn_scalar": 8,
                          "final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0}),
    "gemma3": ("gemma3_text", {"sliding_window": 4, "query_pre_attn_scalar": 8}),
    "phi": ("phi", {"num_key_value_heads": 4}),
    "phi3": ("phi3", {}),
    "granite": ("granite", {"logits_scaling": 4.0}),
    "cohere": ("cohere", {"logit_scale": 0.25}),
}  # fmt: skip


def tiny_config(name, vocab_size):
    """A transformers config of a few thousand parameters, dropouts as the architecture has them."""
    import transformers

    class_name, values = CONFIGS[name]
    values = {"vocab_size": vocab_size, **values}
    if name in ("bert", "roberta", "llama"):
        values |= {"intermediate_size": 32, "max_position_embeddings": 64}
    if name == "gpt2":
        values |= {"bos_token_id": 0, "eos_token_id": 0}
    return getattr(transformers, class_name)(**values)


@pytest.fixture(scope="session")
def gpt2_tokenizer():
    """A byte-level BPE tokenizer without a pad token, as GPT-2's is."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    raw = ByteLevelBPETokenizer()
    raw.train_from_iterator(
        ["the film was good and the actor was bad"] * 4, 290, special_tokens=["<|endoftext|>"]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw._tokenizer, eos_token="<|endoftext|>")


@pytest.fixture(scope="session")
def folders(tmp_path_factory, tiny_tokenizer, gpt2_tokenizer):
    """{architecture: folder of a random backbone with its tokenizer}."""
    from transformers import AutoModel

    root, made = tmp_path_factory.mktemp("models"), {}
    for name in CONFIGS:
        tokenizer = gpt2_tokenizer if name == "gpt2" else tiny_tokenizer
        torch.manual_seed(1)
        model = AutoModel.from_config(tiny_config(name, len(tokenizer)))
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
        said = root / name / "tokenizer_config.json"
        inputs = ["input_ids", "token_type_ids", "attention_mask"]  # as BERT's tokenizer has it
        said.write_text(
            json.dumps(
                json.loads(said.read_text(encoding="utf-8")) | {"model_input_names": inputs}
            ),
            encoding="utf-8",
        )
        made[name] = root / name
    return made


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory, chat_tokenizer):
    """chat_folder("llama") -> folder of a random language model with its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    made = {}

    def folder(name):
        if name not in made:
            kind, values = CHATS[name]
            ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
            values = {**({} if kind == "gpt2" else ROTARY), **ids, **values}
            config = AutoConfig.for_model(kind, vocab_size=len(chat_tokenizer), **values)
            torch.manual_seed(1)
            model = AutoModelForCausalLM.from_config(config)
            made[name] = tmp_path_factory.mktemp("chat") / name
            model.save_pretrained(made[name])
            chat_tokenizer.save_pretrained(made[name])
        return made[name]

    return folder


@pytest.fixture
def make_chat(chat_folder):
    """make_chat("llama", method=..., ...) -> (built, args, tokenizer)."""
    from models.build import ModelArgs, build_model
    from models.load import load_tokenizer

    def build(name="llama", seed=0, **values):
        values.setdefault("source", str(chat_folder(name)))
        args = ModelArgs(kind="chat", **values)
        tokenizer = load_tokenizer(args.source, chat=True)
        return build_model(args, tokenizer, seed), args, tokenizer

    return build


@pytest.fixture
def chat_batch():
    """Inputs and labels of three rows of unlike lengths, padded after the text."""
    draw = torch.Generator().manual_seed(4)
    ids = torch.randint(3, 300, (3, 14), generator=draw)
    mask = (torch.arange(14) < torch.tensor([14, 5, 9])[:, None]).long()
    labels = torch.where(mask.bool(), ids, -100).roll(-1, 1)
    labels[:, -1] = -100
    labels[:, ::3] = -100  # some tokens are not learned
    return {"input_ids": ids.masked_fill(mask == 0, 2), "attention_mask": mask}, labels


@pytest.fixture
def make(folders):
    """make("bert", head_kind="linear", ...) -> (built, args, tokenizer)."""
    from models.build import ModelArgs, build_model
    from models.load import load_tokenizer

    def build(name="bert", seed=0, **values):
        values = {"num_labels": 2, "label_names": ("neg", "pos"), **values}
        values.setdefault("source", str(folders[name]))
        args = ModelArgs(**values)
        tokenizer = load_tokenizer(args.source)
        return build_model(args, tokenizer, seed), args, tokenizer

    return build


@pytest.fixture
def targets():
    """{architecture: two kinds of layer to adapt}."""
    return TARGETS


@pytest.fixture
def tiny():
    """tiny_config, for tests that make a model without a folder."""
    return tiny_config


@pytest.fixture
def stir():
    """stir(model): move every trainable parameter, as training would."""

    def move(model):
        draw = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn(parameter.shape, generator=draw)

    return move


@pytest.fixture
def encode():
    """encode(tokenizer, side="right"): a padded batch of three texts of unlike lengths."""

    def texts(tokenizer, side="right"):
        rows = ["the film was good", "bad", "the actor was bad and the film was good too"]
        return tokenizer(rows, padding=True, padding_side=side, return_tensors="pt")

    return texts


@pytest.fixture
def logits_of():
    """logits_of(model, inputs): logits (B, C) of a native model or one with a head of ours."""

    def run(model, inputs):
        out = model(**inputs)
        return out if isinstance(out, torch.Tensor) else out.logits

    return run


@pytest.fixture
def encoder(stir):
    """encoder(name, kind=AutoModel): random, with attention far from uniform, the same weights on
    each call; eager attention, evaluation mode."""
    import transformers

    def build(name, kind=transformers.AutoModel):
        if name in FAMILIES:
            config_class = getattr(transformers, f"{FAMILIES[name]}Config")
            config = config_class(vocab_size=50, pad_token_id=0, **BERT_LIKE)
        elif name in KIN_OF_LLAMA:
            window = {"sliding_window": None} if name == "mistral" else {}
            config_class = getattr(transformers, f"{KIN_OF_LLAMA[name]}Config")
            config = config_class(vocab_size=50, **LLAMA_LIKE, **window)
        else:
            config = tiny_config(name, 50)
        config.pad_token_id = 0  # GPT-2's has none
        torch.manual_seed(0)
        model = kind.from_config(config, attn_implementation="eager").eval()
        stir(model)
        return model

    return build


@pytest.fixture
def native_kernels():
    """The compiled kernels, built once a session."""
    from models.fast.cpu.compiler import find_compiler
    from models.fast.cpu.native import load_native

    if find_compiler() is None:
        pytest.skip("no C++ compiler on PATH")
    found, said = load_native()
    assert found is not None, said
    return found


@pytest.fixture(params=["plain", "native"])
def kernels(request):
    """The kernels, in plain torch and compiled."""
    from models.fast.cpu.kernels import PlainKernels

    if request.param == "plain":
        return PlainKernels()
    return request.getfixturevalue("native_kernels")


class Questions(TorchDispatchMode):
    """Notes the operations for which a host must wait for its device."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if str(func).startswith(QUESTIONS):
            self.asked.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def questions():
    """A mode to enter: `asked` lists the operations for which a host would have waited."""
    return Questions()


@pytest.fixture
def speed_up_alike(logits_of):
    """speed_up_alike(model, batch, switch=False, ...) -> Speed: a copy with these fast paths has
    the model's logits and gradients. `laid_out`: the copy gets a stream, where it runs on one."""
    from models.fast.speed import SpeedArgs, speed_up
    from models.fast.streams import lay_out

    def compare(model, batch, laid_out=False, **switches):
        fast = copy.deepcopy(model)
        speed = speed_up(fast, SpeedArgs(**switches), torch.device("cpu"), torch.float32)
        stream = laid_out and speed.streams
        there = lay_out({"inputs": batch}, speed.in_front)["inputs"] if stream else batch
        for one, inputs in ((model.train(), batch), (fast.train(), there)):
            logits_of(one, inputs).square().sum().backward()
        torch.testing.assert_close(
            logits_of(fast, batch), logits_of(model, batch), rtol=1e-4, atol=1e-5
        )
        for (n, p), (_, q) in zip(model.named_parameters(), fast.named_parameters(), strict=True):
            if p.requires_grad:
                torch.testing.assert_close(q.grad, p.grad, rtol=1e-3, atol=1e-5, msg=n)
        return speed

    return compare
