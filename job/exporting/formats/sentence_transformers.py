"""A model with a linear head over pooled tokens as sentence-transformers opens it: encode() gives
the logits, which no class of transformers would."""

from pathlib import Path

from job.exporting.format import Parity, Source, Written, exact
from job.exporting.formats.transformers import why_not_cut


class SentenceTransformers:
    """The answers to Format. What is heavy is imported in them."""

    tool = "sentence-transformers"
    library = "sentence-transformers"
    relation = "finetune"
    promise = "the same labels, probabilities and logits to 1e-4"
    checker = "sentence_transformers.py"

    def refuses(self, source: Source) -> str | None:
        from models.elsewhere.sentences import why_no_sentences
        from models.methods.method import can_merge

        if source.texts is None:
            return "it writes text: use --to transformers"
        if (reason := why_no_sentences(source.model)) is not None:
            native = source.args.head_kind == "native"
            return f"{reason}: use --to {'transformers' if native else 'onnx'}"
        if not can_merge(source.model):
            return "what its method added cannot go into the weights: use --to peft"
        if source.texts.pairs:
            return "it takes pairs of texts, and encode() one text each: use --to onnx"
        return why_not_cut(source.texts)

    def needs(self) -> None:
        from job.extras import need_extra

        need_extra("sentences", "checking an export for sentence-transformers")

    def write(self, source: Source, folder: Path) -> Written:
        from job.exporting.decided import write_folded
        from models.elsewhere.sentences import write_sentences

        return write_folded(source, folder, write_sentences)

    def judge(self, parity: Parity) -> list[str]:
        return exact(parity)

    def usage(self, source: Source, name: str) -> str:
        opened = (
            "from sentence_transformers import SentenceTransformer\n\n"
            f"model = SentenceTransformer({name!r})\n"
            'logits = model.encode(["It was good."], convert_to_tensor=True)  # (N, C)\n'
        )
        return opened + {
            "single": "shares = logits.softmax(dim=-1)\n",
            "multi": "shares = logits.sigmoid()  # of each label\n",
            "regression": "",
        }[source.args.kind] + labels_line(source)  # fmt: skip


def labels_line(source: Source) -> str:
    """The last line: labels by name, or the numbers."""
    names = list(source.args.label_names)
    if source.args.kind == "regression":
        return "print(logits.squeeze(-1).tolist())\n"
    if len(names) > 20:
        return (
            'import json\n\nlabels = json.load(open("decision.json"))["labels"]  # the folder\'s\n'
            "print([labels[i] for i in shares.argmax(dim=-1)])\n"
        )  # fmt: skip
    if source.args.kind == "multi":
        return f"labels = {names!r}\nprint([dict(zip(labels, row.tolist())) for row in shares])\n"
    return f"labels = {names!r}\nprint([labels[i] for i in shares.argmax(dim=-1)])\n"
