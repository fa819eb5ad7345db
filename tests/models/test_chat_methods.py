"""Methods on language models: their files here and in PEFT, merging, going on."""

import json

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.checkpoint import load_weights, save_checkpoint
from engine.plan import Progress
from engine.storage import step_folder
from models.export import export_merged, export_model, load_exported
from models.language import hidden_of, packs
from models.methods import METHODS
from models.methods.lora import LoRA
from models.methods.prefix import PrefixTuning
from models.methods.prompt import Prompt
from models.snippet import loading_snippet

WAYS = {
    name: kind(**values) for kind in METHODS.values() for name, values in kind.small.items()
} | {
    "rsLoRA": LoRA(targets="all-linear", rank=2, variant="rslora"),
    "plain PiSSA": LoRA(targets="all-linear", rank=2, init="pissa"),
}  # fmt: skip
FAMILIES = ("gpt2", "smollm", "gemma2")  # Conv1D and fused; grouped heads, tied; eager alone
IN_PEFT = ("LoRA", "DoRA", "PiSSA", "rsLoRA", "plain PiSSA", "Prompt", "Prefix")


def logits(model, inputs):
    with torch.no_grad():
        return model.eval()(**inputs).logits


REFUSED = ("gemma2", "Prefix")  # its attention takes no more keys


@pytest.mark.parametrize(
    ("name", "way"), [(name, way) for name in FAMILIES for way in WAYS if (name, way) != REFUSED]
)
def test_a_saved_method_opens_again_and_in_peft(name, way, make_chat, chat_batch, stir, tmp_path):
    """The same logits: to the bit here, to rounding in PEFT; and the same words written."""
    inputs, _ = chat_batch
    built, args, tokenizer = make_chat(name, method=WAYS[way], allow_code=True)
    stir(built.model)
    expected = logits(built.model, inputs)
    export_model(built, args, tokenizer, tmp_path)
    assert not (tmp_path / "labels.json").exists()
    again, its, back = load_exported(tmp_path, allow_code=True)
    assert back.kind == "chat"
    assert its.chat_template == tokenizer.chat_template
    assert torch.equal(logits(again, inputs), expected)
    if way not in IN_PEFT:
        return
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["task_type"] == "CAUSAL_LM"
    base = AutoModelForCausalLM.from_pretrained(args.source, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    real, answer = inputs["attention_mask"].bool(), logits(theirs, inputs)
    answer = answer[:, answer.shape[1] - expected.shape[1] :]  # less those of its virtual tokens
    torch.testing.assert_close(answer[real], expected[real], rtol=1e-4, atol=2e-5)
    text = {"input_ids": inputs["input_ids"][:, :5], "attention_mask": torch.ones(3, 5).long()}
    how = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 2}
    ours = built.model.generate(**text, **how)
    assert torch.equal(ours, theirs.generate(**text, **how)[:, -ours.shape[1] :])


def test_a_method_that_fits_no_decoder_is_refused_with_the_reason(make_chat):
    name, way = REFUSED
    with pytest.raises(ValueError, match="works its attention out in its own way"):
        make_chat(name, method=WAYS[way])


@pytest.mark.parametrize("way", ["Prompt", "Prefix"])
@pytest.mark.parametrize("name", ["gpt2", "smollm"])
def test_virtual_tokens_stand_before_each_row_that_is_padded_in_front(name, way, make_chat, stir):
    """As transformers' generate pads: each reply is the one to the text alone."""
    built, _, _ = make_chat(name, method=WAYS[way])
    stir(built.model.eval())
    long, short = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(1))
    ids = torch.stack([long, short.roll(5)])
    mask = torch.ones_like(ids)
    mask[1, :5] = 0  # of the second the first four alone, behind padding
    how = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 2}
    both = built.model.generate(input_ids=ids, attention_mask=mask, **how)[:, 9:]
    for text, reply in ((long, both[0]), (short[:4], both[1])):
        alone = built.model.generate(
            input_ids=text[None], attention_mask=torch.ones(1, len(text)).long(), **how
        )
        assert torch.equal(alone[0, len(text) :], reply)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_adapter_that_peft_trained_answers_here(name, make_chat, chat_batch, tmp_path):
    """PEFT's choice of layers for "all-linear" is ours: all but the head."""
    inputs, _ = chat_batch
    built, args, _ = make_chat(name, method=LoRA(targets="all-linear", rank=2, alpha=4.0))
    base = AutoModelForCausalLM.from_pretrained(args.source, dtype=torch.float32)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", target_modules="all-linear", r=2, lora_alpha=4,
        init_lora_weights=False,
    )  # fmt: skip
    theirs = peft.get_peft_model(base, config)
    theirs.save_pretrained(tmp_path)
    args.method.read(built.model, tmp_path)
    torch.testing.assert_close(
        logits(built.model, inputs), logits(theirs, inputs), rtol=1e-4, atol=2e-5
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_merged_model_is_a_plain_folder(name, make_chat, chat_batch, stir, tmp_path):
    inputs, _ = chat_batch
    built, _, tokenizer = make_chat(name, method=LoRA(targets="all-linear", rank=2, variant="dora"))
    stir(built.model)
    expected = logits(built.model, inputs)
    assert export_merged(built.model, tokenizer, tmp_path) < 1e-5
    assert torch.equal(logits(built.model, inputs), expected)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    torch.testing.assert_close(logits(model, inputs), expected, rtol=1e-4, atol=2e-5)
    assert model.generation_config.eos_token_id == model.generation_config.pad_token_id == 2
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    assert tied == model.config.tie_word_embeddings
    said = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        [{"role": "user", "content": "hello"}], tokenize=False
    )
    assert said == "<|im_start|>user\nhello<|im_end|>\n"


def test_a_prompt_is_no_part_of_a_merged_model(make_chat, tmp_path):
    built, _, tokenizer = make_chat(method=Prompt(tokens=3))
    with pytest.raises(ValueError, match="a prompt cannot be merged"):
        export_merged(built.model, tokenizer, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("name", ["smollm", "llama"])
def test_a_run_goes_on_from_another_with_its_adapter_merged(
    name, make_chat, chat_batch, stir, tmp_path
):
    inputs, _ = chat_batch
    built, args, tokenizer = make_chat(name, method=LoRA(targets="all-linear", rank=2))
    stir(built.model)
    expected = logits(built.model, inputs)
    export_model(built, args, tokenizer, tmp_path / "one" / "model")
    lora = LoRA(targets=("q_proj",), rank=2)
    second, its, _ = make_chat(source=f"run:{tmp_path / 'one'}", method=lora)
    torch.testing.assert_close(logits(second.model, inputs), expected, rtol=1e-4, atol=2e-5)
    stir(second.model)
    expected = logits(second.model, inputs)
    export_model(second, its, tokenizer, tmp_path / "two")
    assert torch.equal(logits(load_exported(tmp_path / "two")[0], inputs), expected)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "two" / "base")
    tied = base.lm_head.weight is base.model.embed_tokens.weight
    assert tied == (name == "smollm")


@pytest.mark.parametrize("way", ["all", "head", "last:1", "LoRA", "Prompt"])
def test_a_checkpoint_gives_back_all_that_trains(way, make_chat, chat_batch, stir, tmp_path):
    inputs, _ = chat_batch
    values = {"method": WAYS[way]} if way in WAYS else {"train": way}
    built, _, _ = make_chat("llama", **values)
    optimizer = torch.optim.AdamW([p for p in built.model.parameters() if p.requires_grad])
    stir(built.model)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    save_checkpoint(tmp_path, built.model, optimizer, scaler, Progress(step=1), 1, {})
    again, _, _ = make_chat("llama", **values)
    load_weights(step_folder(tmp_path, 1), again.model)
    assert torch.equal(logits(again.model, inputs), logits(built.model, inputs))


def test_a_prefix_stands_before_every_conversation_of_a_pack(make_chat, stir):
    built, _, _ = make_chat("smollm", method=PrefixTuning(tokens=3))
    stir(built.model)
    assert packs(built.model) is None
    one, two = torch.randint(3, 300, (2, 7), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(7).repeat(2)[None]
    with torch.no_grad():
        packed = hidden_of(
            built.model, {"input_ids": torch.cat([one, two])[None], "position_ids": positions}
        )
        alone = [hidden_of(built.model, {"input_ids": text[None]}) for text in (one, two)]
    torch.testing.assert_close(packed, torch.cat(alone, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", [None, "LoRA", "Prompt", "adapter"])
def test_the_snippet_lets_a_model_answer(way, make_chat, stir, tmp_path):
    built, args, tokenizer = make_chat("smollm", method=WAYS.get(way))
    stir(built.model)
    export_model(built, args, tokenizer, tmp_path)
    names = {}
    exec(loading_snippet(tmp_path, args), names)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello!"}], add_generation_prompt=True, return_tensors="pt",
        return_dict=True,
    )  # fmt: skip
    ids = built.model.eval().generate(**asked, max_new_tokens=64)
    new = ids[0, asked["input_ids"].shape[1] :]
    assert names["reply"] == tokenizer.decode(new, skip_special_tokens=True)
    assert names["reply"]


@pytest.fixture
def peft_adapter(chat_folder, tmp_path):
    """peft_adapter(name, **settings) -> (folder of an adapter that PEFT saved, its model)."""

    def save(name, **values):
        base = AutoModelForCausalLM.from_pretrained(chat_folder(name), dtype=torch.float32)
        config = peft.LoraConfig(
            task_type="CAUSAL_LM", r=4, lora_alpha=4, init_lora_weights=False, **values
        )
        torch.manual_seed(3)
        theirs = peft.get_peft_model(base, config).eval()
        theirs.save_pretrained(tmp_path / "theirs")
        return tmp_path / "theirs", theirs

    return save


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("smollm", {"target_modules": "all-linear"}),
        ("gpt2", {"target_modules": ["c_attn"], "use_rslora": True, "fan_in_fan_out": True}),
        ("llama", {"target_modules": r".*layers\.1\.self_attn\.[qv]_proj", "use_dora": True}),
        ("llama", {"target_modules": ["q_proj", "up_proj"], "rank_pattern": {"q_proj": 2},
                   "alpha_pattern": {"up_proj": 8}, "modules_to_save": ["lm_head"]}),
        ("qwen2", {"target_modules": ["k_proj"], "bias": "lora_only"}),
    ],
)  # fmt: skip
def test_an_adapter_of_peft_is_a_source(
    name, values, make_chat, chat_batch, peft_adapter, tmp_path
):
    inputs, _ = chat_batch
    folder, theirs = peft_adapter(name, **values)
    built, args, tokenizer = make_chat(source=str(folder), method=LoRA(targets="all-linear"))
    expected = logits(theirs, inputs)
    torch.testing.assert_close(logits(built.model, inputs), expected, rtol=1e-4, atol=2e-5)
    assert tokenizer.get_vocab() == make_chat(name)[2].get_vocab()  # of its base
    export_model(built, args, tokenizer, tmp_path / "ours")
    again = load_exported(tmp_path / "ours")[0]
    assert torch.equal(logits(again, inputs), logits(built.model, inputs))


def test_what_of_an_adapter_is_not_known_is_refused(make_chat, peft_adapter):
    def refuse(words, **changes):
        path.write_text(json.dumps(said | changes), encoding="utf-8")
        with pytest.raises(ValueError, match=words):
            make_chat(source=str(path.parent))

    path = peft_adapter("smollm", target_modules=["q_proj"])[0] / "adapter_config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    make_chat(source=str(path.parent))
    refuse("peft_type is 'LOHA'", peft_type="LOHA")
    refuse("task_type is 'SEQ_CLS'", task_type="SEQ_CLS")
    refuse("not on this machine", base_model_name_or_path="somebody/somewhere")
    refuse("not on this machine", base_model_name_or_path="relative/../folder")
    refuse("expected a model's name", base_model_name_or_path=None)
    refuse("which of the two was trained", modules_to_save=["embed_tokens"])
    refuse("of shape", r=2)
    refuse("layer_replication", layer_replication=[[0, 1]])
    refuse("are no numbers", r="four")
    (path.parent / "adapter_model.safetensors").write_bytes(b"no tensors")
    refuse("cannot be read")
