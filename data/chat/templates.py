"""The chat template of a run: the tokenizer's own, a given one, or the plain form with roles.

The plain form is a template as any other, so that generation and other tools say the same.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from jinja2.exceptions import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from data.chat.turns import Message

PLAIN = "plain"
# user: …
# assistant: …</s>      the blank belongs to the reply: a reply's first token holds it
PLAIN_TEMPLATE = (
    "{{ start }}{% for message in messages %}"
    "{{ '' if loop.first else '\\n' }}{{ message['role'] + ':' }}"
    "{{ ' ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\nassistant:' }}{% endif %}"
)
GENERATION = re.compile(r"\{%([-+]?)\s*generation\s*([-+]?)%\}")
END = re.compile(r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}")
SIGNS = "\uf8f0\uf8f1"  # of private use: where what the assistant says begins and ends


@dataclass(frozen=True)
class Template:
    """The text of a template, and what people call it."""

    text: str
    name: str

    def with_signs(self) -> "Template | None":
        """The same template writing SIGNS where it says {% generation %}, and nothing else beside;
        None where it does not say it."""
        if not GENERATION.search(self.text):
            return None
        text = self.text
        for tag, sign in zip((GENERATION, END), SIGNS, strict=True):
            # tags on both sides of the sign treat the white space around them as the one tag did
            text = tag.sub(rf"{{%\1 set _ = 0 %}}{{{{ '{sign}' }}}}{{% set _ = 0 \2%}}", text)
        return Template(text, self.name)


class Unrenderable(ValueError):
    """A conversation that cannot be written; where the template refuses it, in its own words.
    `reason` is what it is counted under."""

    def __init__(self, message: str, reason: str = "template_refuses") -> None:
        super().__init__(message)
        self.reason = reason


def choose_template(tokenizer: PreTrainedTokenizerBase, template: str | None) -> Template:
    """The template for data.template: None is the tokenizer's own, or the plain form where it has
    none; else PLAIN, the name of a file, or the text itself.

    Raises ValueError where the file is not there, where it is no template, and where the plain form
    lacks an EOS token.
    """
    chosen = _find_template(tokenizer, template)
    try:
        render(tokenizer, chosen, [{"role": "user", "content": "a"}], True)
    except Unrenderable as error:
        if isinstance(error.__cause__, TemplateSyntaxError):
            raise ValueError(
                f"data.template ({chosen.name}): line {error.__cause__.lineno}: {error}"
            ) from None
    return chosen


def _find_template(tokenizer: PreTrainedTokenizerBase, template: str | None) -> Template:
    if template is None and tokenizer.chat_template:
        return Template(tokenizer.get_chat_template(), "the model's own")
    if template is None or template == PLAIN:
        if tokenizer.eos_token is None:
            raise ValueError(
                "data.template: the plain form ends each reply with the EOS token, and this "
                "tokenizer has none; give it one, or give a template"
            )
        begins = tokenizer.bos_token is not None and tokenizer("a")["input_ids"][:1] == [
            tokenizer.bos_token_id
        ]
        start = "{{ bos_token }}" if begins else ""
        return Template(PLAIN_TEMPLATE.replace("{{ start }}", start), "plain, user: … assistant: …")
    if "{{" in template or "{%" in template:
        return Template(template, "given as text")
    path = Path(template).expanduser()
    try:
        return Template(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"data.template: {template!r} cannot be read ({error}); expected {PLAIN!r}, a file, or "
            "a template as text"
        ) from None


def render(
    tokenizer: PreTrainedTokenizerBase, template: Template, messages: list[Message], ask: bool
) -> str:
    """The conversation as the template writes it, in transformers' sandbox; with `ask` also what
    makes the assistant answer. Raises Unrenderable in the template's own words.

    The same text as `tokenizer.apply_chat_template`, which copies each message anew for each of
    the many beginnings of a conversation that are rendered here: twenty times as slow.
    """
    try:
        text: str = _compile_jinja_template(template.text).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=ask,
            **tokenizer.special_tokens_map,
        )  # fmt: skip
    except (TemplateError, TypeError, KeyError, IndexError) as error:
        raise Unrenderable(" ".join(str(error).split())) from error
    return text
