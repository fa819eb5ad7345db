"""An Ollama Modelfile: the file, the chat template in Ollama's own language, and what ends a reply.

Ollama's templates are Go's and the model's is Jinja. Nothing translates one into the other, so the
model's is tried on conversations: where it gives what ChatML gives, ChatML stands for it.
"""

from typing import Any

TRIED = (  # conversations that tell templates apart
    [{"role": "user", "content": "one"}],
    [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"},
     {"role": "user", "content": "three"}],
)  # fmt: skip
SYSTEM = {"role": "system", "content": "zero"}
CHATML = (
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n"
)
MARK = "<|im_start|>system\n"


def chatml(messages: list[dict[str, str]]) -> str:
    """A conversation as ChatML writes it, up to where the model replies."""
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def system_of(tokenizer: Any) -> tuple[bool, str | None]:
    """(whether a tokenizer's template is ChatML, the system message that it puts before a
    conversation that has none)."""

    def rendered(messages: list[dict[str, str]]) -> str:
        return str(
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )

    try:
        as_chatml = {len(one): rendered([SYSTEM, *one]) == chatml([SYSTEM, *one]) for one in TRIED}
        before = {rendered(one).removesuffix(chatml(one)) for one in TRIED}
    except Exception:  # a template of Jinja may raise anything
        return False, None
    front = before.pop()
    if before or not all(as_chatml.values()):
        return False, None
    if not front:
        return True, None
    system = front.removeprefix(MARK).removesuffix("<|im_end|>\n")
    good = front == f"{MARK}{system}<|im_end|>\n" and "<|im_" not in system and '"""' not in system
    return good, system if good else None


def modelfile(tokenizer: Any, file: str, context: int, plain: bool) -> tuple[str, str | None]:
    """(a Modelfile for `file`, what it lacks and why). `plain`: the model goes on with a text and
    answers no messages; `context`: tokens that it takes."""
    lines, stops, lacks = [f"FROM ./{file}"], [tokenizer.eos_token], None
    good, system = (False, None) if plain else system_of(tokenizer)
    if plain:
        lines.append('TEMPLATE """{{ .Prompt }}"""')
    elif good:
        lines += [f'SYSTEM """{system}"""'] if system else []
        lines.append(f'TEMPLATE """{CHATML}"""')
        stops.append("<|im_end|>")
    else:
        lacks = (
            "The Modelfile has no TEMPLATE: the model's is no ChatML, and Ollama writes templates "
            "in another language. It takes one of its own where it knows the one in the file; else "
            "write it by hand."
        )
    lines += [f'PARAMETER stop "{word}"' for word in dict.fromkeys(filter(None, stops))]
    lines += [f"PARAMETER num_ctx {context}", "PARAMETER temperature 0"]
    return "\n".join(lines) + "\n", lacks
