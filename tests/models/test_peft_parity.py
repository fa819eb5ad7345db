"""Numbers and files side by side with PEFT, which is an oracle here and nothing else."""

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from models.export import export_model
from models.methods.lora import LoRA, load_adapter
from models.trainable import count_parameters

peft = pytest.importorskip("peft")
NAMES = ["bert", "distilbert", "gpt2"]
CASES = {  # arguments of ours, and those of PEFT's LoraConfig that mean the same
    "lora": ({}, {}),
    "rslora": ({"variant": "rslora"}, {"use_rslora": True}),
    "dora": ({"variant": "dora"}, {"use_dora": True}),
    "pissa": ({"init": "pissa"}, {"init_lora_weights": "pissa"}),
    "pissa, rslora": (
        {"init": "pissa", "variant": "rslora"}, {"init_lora_weights": "pissa", "use_rslora": True}
    ),
    "pissa, dora": (
        {"init": "pissa", "variant": "dora"}, {"init_lora_weights": "pissa", "use_dora": True}
    ),
    "patterns": (
        {"rank_pattern": {"1.*": 5, "query": 2, "q_lin": 2}, "alpha_pattern": {"0.*": 9.0}},
        {"rank_pattern": {"1.*": 5, "query": 2, "q_lin": 2}, "alpha_pattern": {"0.*": 9.0}},
    ),
    "patterns, pissa": (
        {"rank_pattern": {r".*\.1\..*": 5}, "alpha_pattern": {"0.*": 9.0}, "init": "pissa"},
        {"rank_pattern": {r".*\.1\..*": 5}, "alpha_pattern": {"0.*": 9.0},
         "init_lora_weights": "pissa"},
    ),
    "all biases": ({"bias": "all"}, {"bias": "all"}),
    "biases of adapted layers": ({"bias": "lora_only"}, {"bias": "lora_only"}),
}  # fmt: skip
PAIRS = [  # DistilBERT is put together as BERT is, GPT-2 is not
    pytest.param(name, case, marks=[pytest.mark.slow] if name == "distilbert" else [])
    for name in NAMES
    for case in CASES
]
HEADS = {"bert": [], "distilbert": ["pre_classifier", "classifier"], "gpt2": []}


def lora_of(targets, name, case):
    """Our arguments of a case, its patterns less those that fit nothing in this architecture."""
    ours = dict(CASES[case][0])
    if case == "patterns":
        fits = {"bert": "query", "distilbert": "q_lin"}.get(name)
        ours["rank_pattern"] = {k: v for k, v in ours["rank_pattern"].items() if k in ("1.*", fits)}
    return LoRA(targets[name], rank=3, alpha=6.0, **ours)


def peft_twin(built, args, folder, tokenizer, **more):
    """PEFT's model of the same base, head and LoRA settings as `built`, adapters still at zero."""
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    base.resize_token_embeddings(len(tokenizer))
    base.config.pad_token_id = tokenizer.pad_token_id
    head = {n: p for n, p in built.model.named_parameters() if n in built.head_names}
    base.load_state_dict(head, strict=False)
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=args.method.rank,
        lora_alpha=args.method.alpha,
        lora_dropout=0.0,
        target_modules=list(args.method.targets),
        modules_to_save=HEADS[args.source.rsplit("/", 1)[-1]] or None,
        fan_in_fan_out="gpt2" in args.source,
        **more,
    )
    return peft.get_peft_model(base, config).eval()


@pytest.fixture
def pair(make, folders, targets, stir, tmp_path):
    """pair("bert", "dora") -> ours, PEFT's with our saved adapter loaded, args, tokenizer."""

    def build(name, case):
        built, args, tokenizer = make(name, method=lora_of(targets, name, case))
        stir(built.model)
        export_model(built, args, tokenizer, tmp_path / "ours")
        base = AutoModelForSequenceClassification.from_pretrained(folders[name], num_labels=2)
        base.resize_token_embeddings(len(tokenizer))
        base.config.pad_token_id = tokenizer.pad_token_id
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / "ours", is_trainable=True).eval()
        return built.model.eval(), theirs, args, tokenizer

    return build


def their_gradients(model, rank):
    """PEFT's gradients by our names; of an adapter of twice the rank the half that trains here."""
    found = {}
    renamed = {
        "base_model.model.": "", ".modules_to_save.default": "", "lora_A.default.weight": "lora_A",
        "lora_B.default.weight": "lora_B", "base_layer.bias": "base.bias",
        "lora_magnitude_vector.default.weight": "magnitude",
    }  # fmt: skip
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            for theirs, ours in renamed.items():
                name = name.replace(theirs, ours)
            found[name] = parameter.grad
            if name.endswith("lora_A"):
                found[name] = parameter.grad[: rank(name)]
            if name.endswith("lora_B"):
                found[name] = parameter.grad[:, : rank(name)]
    return found


def is_close(found, expected, case):
    """Equal to the bit, but where DoRA or PiSSA round in another order."""
    if "dora" in case or case == "pissa from PEFT":
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        return True
    return torch.equal(found, expected)


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_our_saved_adapter_gives_equal_logits_and_gradients_in_peft(pair, encode, name, case):
    ours, theirs, _, tokenizer = pair(name, case)
    batch = encode(tokenizer)
    logits = ours(**batch).logits
    their_logits = theirs(**batch).logits
    assert is_close(logits, their_logits, case)
    labels = torch.tensor([0, 1, 1])
    torch.nn.functional.cross_entropy(logits, labels).backward()
    torch.nn.functional.cross_entropy(their_logits, labels).backward()
    shapes = {n: len(p) if n.endswith("A") else p.shape[-1] for n, p in ours.named_parameters()}
    expected = their_gradients(theirs, shapes.get)
    gradients = {n: p.grad for n, p in ours.named_parameters() if p.requires_grad}
    assert set(gradients) == set(expected)
    for key, gradient in gradients.items():
        assert gradient.any() or key.endswith(".bias")  # a key's moves all scores alike
        torch.testing.assert_close(gradient, expected[key], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_trainable_count_is_pefts(make, folders, targets, name, case):
    built, args, tokenizer = make(name, method=lora_of(targets, name, case))
    theirs = peft_twin(built, args, str(folders[name]), tokenizer, **CASES[case][1])
    assert count_parameters(built.model)[0] == theirs.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_adapter_saved_by_peft_loads_into_ours(
    make, folders, targets, stir, encode, tmp_path, name, case
):
    built, args, tokenizer = make(name, method=lora_of(targets, name, case))
    theirs = peft_twin(built, args, str(folders[name]), tokenizer, **CASES[case][1])
    stir(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    batch = encode(tokenizer)
    assert not torch.allclose(built.model(**batch).logits, theirs(**batch).logits)
    filled = load_adapter(built.model, tmp_path / "theirs")
    how = "pissa from PEFT" if "pissa" in case else case
    assert is_close(built.model(**batch).logits, theirs(**batch).logits, how)
    assert {n for n, p in built.model.named_parameters() if p.requires_grad} <= filled


def test_backbone_adapter_of_another_head_opens_in_peft(
    make, folders, targets, stir, encode, tmp_path
):
    built, args, tokenizer = make("gpt2", head_kind="mlp", method=LoRA(targets["gpt2"], rank=2))
    stir(built.model)
    export_model(built, args, tokenizer, tmp_path)
    base = AutoModel.from_pretrained(folders["gpt2"])
    base.resize_token_embeddings(len(tokenizer))
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    assert type(theirs).__name__ == "PeftModelForFeatureExtraction"
    batch = encode(tokenizer)
    hidden = built.model.backbone(**batch).last_hidden_state
    real = batch["attention_mask"].bool()
    assert torch.equal(hidden[real], theirs(**batch).last_hidden_state[real])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"lora_alpha": 3}, "scaling"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"use_qalora": True}, "use_qalora"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"r": 4}, "r = 4"),
        ({"use_rslora": True}, "scaling"),
        ({"rank_pattern": {"query": 3}}, "r = 3"),
        ({"alpha_pattern": {"query": 3}}, "scaling"),
        ({"rank_pattern": {"(a+)+": 3}}, "repetition of a group"),
    ],
)
def test_adapters_that_compute_something_else_are_refused(make, tmp_path, change, message):
    import json

    built, args, tokenizer = make(method=LoRA(("query",), rank=2))
    export_model(built, args, tokenizer, tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8"
    )
    with pytest.raises(ValueError, match=message):
        load_adapter(built.model, tmp_path)


def test_adapter_of_other_layers_is_refused(make, tmp_path):
    built, args, tokenizer = make(method=LoRA(("query",), rank=2))
    export_model(built, args, tokenizer, tmp_path)
    more, _, _ = make(method=LoRA(("query", "key"), rank=2))
    with pytest.raises(ValueError, match=r"nothing for the adapted layer .*key"):
        load_adapter(more.model, tmp_path)
    other, _, _ = make(method=LoRA(("value",), rank=2))
    with pytest.raises(ValueError, match="which this model has not"):
        load_adapter(other.model, tmp_path)
