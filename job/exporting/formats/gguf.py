"""A language model as one GGUF file for llama.cpp, Ollama and LM Studio, with a Modelfile."""

from __future__ import annotations

from pathlib import Path

from files.write import save_text
from job.exporting.format import Parity, Source, Written
from job.exporting.words import is_on_hub

MOST_TOKENS = 8192  # of a conversation in Ollama, whose memory grows with it


class Gguf:
    """The answers to Format, weights in half precision. What is heavy is imported in them."""

    tool = "llama.cpp"
    library = "gguf"
    relation = "quantized"
    promise = "greedy replies equal token by token, log-probabilities of their tokens to 0.05"
    checker = "gguf.py"
    eight = False  # whether weights have 8 bits
    off = 0.05  # how far the log-probability of a token may be off

    def refuses(self, source: Source) -> str | None:
        from models.elsewhere.gguf_file import why_no_gguf

        if source.texts is not None:
            return "it labels texts, and llama.cpp writes them: use --to onnx or --to transformers"
        reason = why_no_gguf(source.model, source.tokenizer)
        return reason if reason is None else f"{reason}: use --to transformers"

    def needs(self) -> None:
        from job.extras import need_extra

        need_extra("gguf", "writing a GGUF file")

    def write(self, source: Source, folder: Path) -> Written:
        from models.elsewhere.gguf_file import FILE, write_gguf
        from models.elsewhere.modelfile import modelfile
        from models.heads import transformers_model

        plain = source.plain_texts
        template = None if plain else source.tokenizer.get_chat_template()
        drift = write_gguf(source.model, source.tokenizer, template, folder, self.eight)
        config = transformers_model(source.model).config
        most = min(MOST_TOKENS, config.max_position_embeddings)
        text, lacks = modelfile(source.tokenizer, FILE, most, plain)
        save_text(folder / "Modelfile", text)
        notes = [] if source.args.method is None else [f"The method is merged; drift {drift:.1e}."]
        return Written(source.decision, [*notes, *([lacks] if lacks else [])])

    def judge(self, parity: Parity) -> list[str]:
        lines = []
        if not self.eight and parity.equal != parity.rows:
            lines.append(f"{parity.rows - (parity.equal or 0)} of {parity.rows} replies differ")
        if parity.other_prompts:
            lines.append(f"{parity.other_prompts} of {parity.rows} prompts have other tokens")
        if parity.outputs is None:
            lines.append("no reply of openloop's has a token by which to judge it")
        elif not parity.outputs <= self.off:
            lines.append(
                f"log-probabilities are off by up to {parity.outputs:.2g}; at most {self.off:g} is "
                "allowed"
            )
        return lines

    def usage(self, source: Source, name: str) -> str:
        opened = (
            f'Llama.from_pretrained({name!r}, "model.gguf", n_ctx=2048)'
            if is_on_hub(name)
            else f"Llama({name + '/model.gguf'!r}, n_ctx=2048)"
        )
        example = (
            'print(model("Once upon a time", temperature=0)["choices"][0]["text"])\n'
            if source.plain_texts
            else 'messages = [{"role": "user", "content": "Hello!"}]\n'
            "reply = model.create_chat_completion(messages, temperature=0)\n"
            'print(reply["choices"][0]["message"]["content"])\n'
        )
        return (
            "# ollama create my-model -f Modelfile && ollama run my-model, in the folder; or\n"
            "from llama_cpp import Llama\n\n"
            f"model = {opened}\n{example}"
        )


class Gguf8(Gguf):
    """The same in 8 bits: half of the size, and other tokens here and there."""

    promise = "log-probabilities of openloop's replies to 0.5"
    eight = True
    off = 0.5
