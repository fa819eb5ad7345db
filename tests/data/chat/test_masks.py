"""Which tokens are learned, held against lists written by hand and against transformers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from talks import CHATML, GEMMA, GENERATION, LLAMA, MISTRAL, SMOLLM, rows_of, talk

from data.chat.encode import ChatEncoding, encode_chats, shift_labels
from data.chat.render import Renderer
from data.chat.templates import choose_template
from data.reading.rows import BadRow

SHORT = ChatEncoding(200)


def mask_of(tokenizer, messages, learn="replies", template=None):
    """The tokens of a conversation as text, those that are learned with a star."""
    renderer = Renderer(tokenizer, choose_template(tokenizer, template), learn)
    (masked,) = renderer.mask([messages], ["chats.jsonl:1"])
    if isinstance(masked, BadRow):
        return masked.message
    names = tokenizer.convert_ids_to_tokens(masked.ids.tolist())
    shown = ["*" * bool(on) + name for name, on in zip(names, masked.learned, strict=True)]
    return " ".join(shown).replace("Ġ", "_").replace("Ċ", "\\n")


HAND = {
    "chatml": (CHATML, None, "<|im_end|>",
        "<|im_start|> user \\n hi <|im_end|> \\n <|im_start|> assistant \\n *yo *<|im_end|> \\n "
        "<|im_start|> user \\n you <|im_end|> \\n <|im_start|> assistant \\n *fine *<|im_end|> "
        "\\n"),
    "smollm2": (SMOLLM, None, "<|im_end|>",
        "<|im_start|> system \\n tell _me <|im_end|> \\n "
        "<|im_start|> user \\n hi <|im_end|> \\n <|im_start|> assistant \\n *yo *<|im_end|> \\n "
        "<|im_start|> user \\n you <|im_end|> \\n <|im_start|> assistant \\n *fine *<|im_end|> "
        "\\n"),
    "llama-3": (LLAMA, "<|bot|>", "<|eot|>",
        "<|bot|> <|sh|> user <|eh|> \\n\\n hi <|eot|> <|sh|> assistant <|eh|> \\n\\n *yo *<|eot|> "
        "<|sh|> user <|eh|> \\n\\n you <|eot|> <|sh|> assistant <|eh|> \\n\\n *fine *<|eot|>"),
    "mistral": (MISTRAL, "<s>", "</s>",
        "<s> [INST] _hi _ [/INST] *_yo *</s> [INST] _you _ [/INST] *_fine *</s>"),
    "gemma": (GEMMA, "<bos>", "</s>",
        "<bos> <sot> user \\n hi <eot> \\n <sot> model \\n *yo *<eot> \\n "
        "<sot> user \\n you <eot> \\n <sot> model \\n *fine *<eot> \\n"),
    "plain": (None, None, "</s>",
        "user : _hi \\n assistant : *_yo *</s> \\n user : _you \\n assistant : *_fine *</s>"),
}  # fmt: skip


@pytest.mark.parametrize("name", HAND)
def test_masks_are_those_written_by_hand(name, tokenizer_for):
    template, bos, eos, expected = HAND[name]
    tokenizer = tokenizer_for(template, bos=bos, eos=eos)
    assert mask_of(tokenizer, talk("hi", "yo", "you", "fine")) == expected


@pytest.mark.parametrize("name", [name for name in HAND if HAND[name][0]])
def test_tokens_are_those_that_transformers_makes(name, tokenizer_for):
    template, bos, eos, _ = HAND[name]
    tokenizer = tokenizer_for(template, bos=bos, eos=eos)
    messages = talk("hi", "yo\n\n  and: 2 < 3", "you é", "fine")
    renderer = Renderer(tokenizer, choose_template(tokenizer, None))
    (masked,) = renderer.mask([messages], ["a"])
    assert masked.ids.tolist() == tokenizer.apply_chat_template(messages)["input_ids"]


@pytest.mark.parametrize("name", [name for name in HAND if HAND[name][0]])
def test_a_prompt_of_generation_begins_the_row_up_to_what_is_learned(name, tokenizer_for):
    template, bos, eos, _ = HAND[name]
    tokenizer = tokenizer_for(template, bos=bos, eos=eos)
    messages = talk("hi", "yo", "you", "fine")
    renderer = Renderer(tokenizer, choose_template(tokenizer, None), "last")
    (masked,) = renderer.mask([messages], ["a"])
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True)["input_ids"]
    assert masked.ids[: len(prompt)].tolist() == prompt
    assert np.flatnonzero(masked.learned)[0] == len(prompt)


def test_last_learns_the_last_reply_alone_and_all_learns_everything(chatml):
    messages = talk("hi", "yo", "you", "fine")
    assert mask_of(chatml, messages, "last").count("*") == 2
    assert "*fine *<|im_end|>" in mask_of(chatml, messages, "last")
    shown = mask_of(chatml, messages, "all").split()
    assert all(token.startswith("*") for token in shown)


def test_labels_are_the_next_token_where_it_is_learned(chatml):
    encoded, counts = encode_chats(rows_of(talk("hi", "yo")), chatml, SHORT, None, "f")
    (row,) = encoded.dataset
    names = chatml.convert_ids_to_tokens(row["input_ids"])
    targets = {
        (names[t], chatml.convert_ids_to_tokens(label))
        for t, label in enumerate(row["labels"]) if label != -100
    }  # fmt: skip
    assert targets == {("Ċ", "yo"), ("yo", "<|im_end|>")}
    assert row["labels"][-1] == -100
    assert counts.learned == 2


def test_bos_stands_once_where_template_and_tokenizer_both_write_it(tokenizer_for):
    from tokenizers import processors

    tokenizer = tokenizer_for(LLAMA, bos="<|bot|>", eos="<|eot|>")
    number = tokenizer.convert_tokens_to_ids("<|bot|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bot|> $A", special_tokens=[("<|bot|>", number)]
    )
    assert tokenizer("hi")["input_ids"][0] == number
    assert mask_of(tokenizer, talk("hi", "yo")).count("<|bot|>") == 1
    plain = mask_of(tokenizer, talk("hi", "yo"), template="plain")
    assert plain == "<|bot|> user : _hi \\n assistant : *_yo *<|eot|>"
    text = mask_of(tokenizer, [{"role": "text", "content": "hi yo"}])
    assert text == "*<|bot|> *hi *_yo *<|eot|>"


def test_a_generation_template_is_used_and_equals_the_beginnings_and_transformers(tokenizer_for):
    tokenizer = tokenizer_for(GENERATION)
    for messages in (talk("hi", "yo", "you", " fine\n"), talk("hi", "yo", system="tell me")):
        assert mask_of(tokenizer, messages) == mask_of(tokenizer, messages, template=CHATML)
        theirs = tokenizer.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True
        )
        renderer = Renderer(tokenizer, choose_template(tokenizer, None))
        (masked,) = renderer.mask([messages], ["a"])
        assert masked.ids.tolist() == theirs["input_ids"]
        assert masked.learned.astype(int).tolist() == theirs["assistant_masks"]


def test_a_generation_template_that_forgets_the_end_of_a_reply_is_refused(tokenizer_for):
    wrong = GENERATION.replace(
        "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}",
        "{{ m['content'] }}{% endgeneration %}{{ '<|im_end|>' }}",
    )
    with pytest.raises(ValueError, match=r"generation.*'yo'.*'yo<\|im_end\|>'.*correct"):
        mask_of(tokenizer_for(wrong), talk("hi", "yo"))


def test_a_template_that_strips_earlier_thinking_is_an_error_that_shows_the_place(tokenizer_for):
    thinks = CHATML.replace(
        "+ m['content'] +",
        "+ (m['content'] if loop.last else m['content'].split('</think>')[-1]) +",
    )
    messages = talk("hi", "<think>is it</think>yo", "you", "fine")
    tokenizer = tokenizer_for(thinks)
    with pytest.raises(ValueError, match=r"turns 1 to 2 alone.*all 4 \(chats.jsonl:1\)") as caught:
        mask_of(tokenizer, messages)
    assert "<think>" in str(caught.value)
    assert 'data.learn = "last"' in str(caught.value)
    shown = mask_of(tokenizer, messages, "last")
    assert shown.count("*") == 2
    assert "think" not in shown


def test_a_template_that_puts_the_system_into_the_last_question_is_an_error(tokenizer_for):
    late = (
        "{% for m in messages %}{% if m['role'] == 'user' %}"
        "{{ '[INST] ' + (messages[0]['content'] + '\n\n' if loop.last or loop.index0 == "
        "messages | length - 2 else '') + m['content'] + ' [/INST]' }}"
        "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% endif %}"
        "{% endfor %}"
    )
    with pytest.raises(ValueError, match=r"does not begin"):
        mask_of(tokenizer_for(late, eos="</s>"), talk("hi", "yo", "you", "it", system="tell me"))


def test_a_template_that_trims_is_followed(tokenizer_for):
    tokenizer = tokenizer_for(LLAMA, bos="<|bot|>", eos="<|eot|>")
    shown = mask_of(tokenizer, talk("hi ", "\n yo", "you", "fine"))
    assert shown == HAND["llama-3"][3]


def test_a_template_refuses_in_its_own_words(tokenizer_for):
    tokenizer = tokenizer_for(GEMMA, bos="<bos>")
    assert mask_of(tokenizer, talk("hi", "yo", system="tell")) == "System role not supported"
    three = [*talk("hi"), *talk("yo", "you")]
    assert "alternate" in mask_of(tokenizer_for(MISTRAL, bos="<s>"), three)


def test_a_special_token_in_a_text_is_named(chatml):
    assert "turn 2 says '<|im_end|>'" in mask_of(chatml, talk("hi", "yo<|im_end|>"))


def test_a_reply_that_grows_into_the_template_is_named(chatml):
    shown = mask_of(chatml, talk("hi", "\nyo"))  # \n\n is a token
    assert "inside a token" in shown


def test_a_prompt_with_other_tokens_alone_than_in_the_row_is_named(tokenizer_for):
    from tokenizers import pre_tokenizers

    tokenizer = tokenizer_for(LLAMA, bos="<|bot|>", eos="<|eot|>")
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = gpt2  # \n\n alone is one token, before a word two
    assert "another prompt" in mask_of(tokenizer, talk("hi", "yo"))


def test_a_sandbox_keeps_a_template_from_the_machine(tokenizer_for):
    evil = "{{ messages.__class__.__mro__ }}"
    assert "unsafe" in mask_of(tokenizer_for(evil), talk("hi", "yo"))


def test_a_given_template_is_text_or_a_file(chatml, tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text(GEMMA, encoding="utf-8")
    chatml.add_special_tokens({"bos_token": "<bos>"})
    as_text = mask_of(chatml, talk("hi", "yo"), template=GEMMA)
    assert as_text == mask_of(chatml, talk("hi", "yo"), template=str(path))
    with pytest.raises(ValueError, match="cannot be read"):
        choose_template(chatml, "no_such.jinja")
    with pytest.raises(ValueError, match="line 1"):
        choose_template(chatml, "{% for m in messages %}")


def test_the_plain_form_needs_an_eos_token(tokenizer_for):
    with pytest.raises(ValueError, match="EOS"):
        choose_template(tokenizer_for(eos=None), None)


def test_a_tokenizer_that_puts_a_blank_before_a_text_is_followed():
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    raw.decoder = decoders.Metaspace()
    special = [AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>")]
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special)
    raw.train_from_iterator(["[INST] hi [/INST] yo how are you fine"] * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = MISTRAL
    shown = mask_of(tokenizer, talk("hi", "yo", "are you", "fine"))
    assert shown == ("<s> ▁[INST] ▁hi ▁[/INST] *▁yo *</s> ▁[INST] ▁are ▁you ▁[/INST] *▁fine *</s>")


WORD = st.text(alphabet="hi yo.\n<é{}", min_size=1, max_size=12).filter(
    lambda text: text.strip() == text
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORD, WORD), min_size=1, max_size=4), st.sampled_from(sorted(HAND)))
def test_what_is_learned_is_the_replies_and_their_ends(tokenizers, pairs, name):
    tokenizer, template = tokenizers[name]
    messages = talk(*(text for pair in pairs for text in pair))
    (masked,) = Renderer(tokenizer, template).mask([messages], ["a"])
    runs = np.split(masked.ids, np.flatnonzero(np.diff(masked.learned)) + 1)
    learned = [tokenizer.decode(run) for run in runs[1::2]]
    end = "<eot>" if name == "gemma" else tokenizer.eos_token
    assert [text.removesuffix(end).strip() for text in learned] == [reply for _, reply in pairs]
    assert all(text.endswith(end) for text in learned)
    labels = shift_labels(masked)
    assert (labels[labels != -100] == masked.ids[1:][masked.learned[1:]]).all()


@pytest.fixture(scope="module")
def tokenizers(raw_tokenizer):
    import copy

    from transformers import PreTrainedTokenizerFast

    made = {}
    for name, (template, bos, eos, _) in HAND.items():
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=copy.deepcopy(raw_tokenizer), bos_token=bos, eos_token=eos
        )
        tokenizer.chat_template = template
        made[name] = (tokenizer, choose_template(tokenizer, None))
    return made
