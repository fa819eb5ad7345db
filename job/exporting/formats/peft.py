"""The adapter as the run keeps it, in PEFT's layout: small, and beside its base."""

import re
import shutil
from pathlib import Path

from files.publish import read_manifest
from files.read import read_json
from files.write import save_text, to_json
from job.exporting.format import Parity, Source, Written, exact
from job.exporting.words import is_on_hub

BASE = re.compile(r"^(?:from importlib\.util import find_spec\n)?base = .*$", re.MULTILINE)
LEFT = ("manifest.json", "openloop.json", "README.md", "bag")  # openloop's own


class Peft:
    """The answers to Format. What is heavy is imported in them."""

    tool = "PEFT"
    library = "peft"
    relation = "adapter"
    promise = "the same labels or replies, probabilities and logits to 1e-4"
    checker = "peft.py"

    def refuses(self, source: Source) -> str | None:
        from job.exporting.formats.transformers import why_not_cut
        from models.snippet import TEXTS, needs_openloop

        if source.args.method is None:
            return "it was trained without an adapter: use another format"
        if needs_openloop(source.folder.model, source.args, source.texts or TEXTS):
            return "PEFT has no form of its method, or its head is code of its own: use --to onnx"
        return None if source.texts is None else why_not_cut(source.texts)

    def needs(self) -> None:
        from job.extras import need_extra

        need_extra("peft", "checking an adapter")

    def write(self, source: Source, folder: Path) -> Written:
        from job.exporting.decided import limits, unit_notes, write_rest
        from models.elsewhere.merged import tokenizer_of

        model = source.folder.model
        for name in read_manifest(model):  # and nothing that somebody else laid there
            if name.partition("/")[0] not in LEFT:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(model / name, folder / name)
        place_base(source, folder)
        if source.texts is None:
            tokenizer_of(source.tokenizer, None).save_pretrained(folder)
            return Written(source.decision)
        texts = source.texts
        tokenizer_of(source.tokenizer, texts.max_length, texts.truncation).save_pretrained(folder)
        decision = source.decision
        notes = unit_notes(decision) + limits(decision, source.args.label_names)
        write_rest(decision, source, folder)  # a bag's share of it is no part of this
        return Written(decision, notes + pooler_notes(source))

    def judge(self, parity: Parity) -> list[str]:
        return exact(parity)

    def usage(self, source: Source, name: str) -> str:
        from job.testing.decide import snippet_lines
        from models.snippet import TEXTS, loading_snippet

        snippet = loading_snippet(
            source.folder.model, source.args, source.texts or TEXTS, snippet_lines(source.decision)
        )
        folder = repr(name)
        if is_on_hub(name):  # files beside the adapter are read too
            folder = f"snapshot_download({name!r})"
            snippet = f"from huggingface_hub import snapshot_download\n{snippet}"
        snippet = snippet.replace(repr(str(source.folder.model)), folder)
        here = re.search(r"^base = '[/~]", snippet, re.MULTILINE)  # a folder of this machine
        known = source.base_model or ("path/to/its/base" if here else None)
        return snippet if known is None else BASE.sub(lambda _: f"base = {known!r}", snippet)


def pooler_notes(source: Source) -> list[str]:
    """What transformers may report of a base without its pooling layer, which no head of ours
    reads."""
    if getattr(getattr(source.model, "backbone", None), "pooler", source) is not None:
        return []
    return [
        "Where transformers reports weights of a pooler as missing, ignore that: nothing here "
        "reads that layer."
    ]


def place_base(source: Source, folder: Path) -> None:
    """Let an adapter on a folder of this machine name where that is now: it may have moved since
    the training, by --base or with the packages."""
    from models.base import find_base
    from models.record import read_record

    record = read_record(source.folder.model)
    base, path = record["base"], folder / "adapter_config.json"
    if base["in_memory"] or (source.base is None and base["source"].startswith("hub:")):
        return
    there, _ = find_base(source.folder.model, record, source.base, False)
    values = read_json(path) | {"base_model_name_or_path": there, "revision": None}
    save_text(path, to_json(values, indent=2) + "\n")
