"""Shared fixtures: a tiny random encoder, a tokenizer trained in-process, labelled reviews."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # hermetic: no test may reach for a hub
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models: two threads only wait for each other
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).parent.parent))

from job.console import prepare_console, read_word

prepare_console()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Where the locale is C, --basetemp may still hold letters beyond ASCII."""
    if config.option.basetemp is not None:
        config.option.basetemp = read_word(str(config.option.basetemp))


ROOT = Path(__file__).parent.parent
GOOD = ["good", "great", "moving", "funny", "superb", "charming"]
BAD = ["bad", "awful", "boring", "stupid", "poor", "tedious"]
REST = ["the", "film", "was", "a", "story", "of", "people", "in", "town", "and", "music"]


def make_reviews(rows: int) -> list[tuple[str, str]]:
    """Labelled sentences, all different, half positive: a tiny model learns them in few steps."""
    reviews = []
    for i in range(rows):
        words, label = (GOOD, "pos") if i % 2 else (BAD, "neg")
        rest = [REST[(i * 7 + j * (1 + i % 5)) % len(REST)] for j in range(3 + i % 9)]
        text = f"{rest[0]} {words[i % 6]} {' '.join(rest)} {words[(i // 6) % 6]} number {i}"
        reviews.append((text, label))
    return reviews


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A WordPiece tokenizer of about 300 entries, trained on the reviews above."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    raw.train_from_iterator([text for text, _ in make_reviews(200)], trainer)
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
    )


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, tiny_tokenizer):
    """Path of a random BertModel (32 wide, 2 layers, 2 heads, 128 positions) and its tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny") / "tiny-bert"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reviews_csv(tmp_path_factory):
    """Path of a CSV of 60 rows, columns text,label; labels pos and neg."""
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(make_reviews(60))
    return path


@pytest.fixture(scope="session")
def many_reviews(tmp_path_factory):
    """Path of a JSONL file of 340 rows: enough to judge by what a model has learnt."""
    path = tmp_path_factory.mktemp("many") / "reviews.jsonl"
    rows = [{"text": text, "label": label} for text, label in make_reviews(340)]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """No test reads or writes the cache of the person who runs it. Processes that test together
    share one, as runs side by side do: the first to need the kernels builds them for both."""
    base = tmp_path_factory.getbasetemp()
    together = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["OPENLOOP_CACHE"] = str(together / "cache")


@pytest.fixture
def signals_arrive():
    """Signals as a terminal's programs have them: what is started in the background, or by nohup,
    inherits that some are ignored, and passes it on."""
    plain = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in plain.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def run(tmp_path_factory, tiny_folder, reviews_csv):
    """Folder of a finished run that tells neg from pos, hardly trained."""
    import train

    folder = tmp_path_factory.mktemp("predict")
    words = [f"run.dir={folder}", f"model.source={tiny_folder}", "train.max_steps=2"]
    words += [f"data.source={reviews_csv}", "data.max_length=32", "data.validation=8"]
    words += ["precision.dtype=fp32", "precision.device=cpu", "data.filter=label != 'none'"]
    words += ["run.name=one", "data.subset={}", "data.test=8", "data.labels=['neg', 'pos']"]
    words += ["--unset", "bag"]
    assert train.main(["--config", str(ROOT / "configs/imdb_lora.toml"), *words]) == 0
    return folder / "one"


@pytest.fixture(scope="session")
def pair_run(tmp_path_factory, tiny_folder):
    """Folder of a finished run on pairs of texts, columns a and b."""
    import train

    folder = tmp_path_factory.mktemp("pairs")
    rows = [{"a": f"film {i}", "b": f"story {i}", "label": i % 2} for i in range(40)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = [f"run.dir={folder}", f"model.source={tiny_folder}", "train.max_steps=2"]
    words += [f"data.source={folder}/pairs.jsonl", 'data.text=["a", "b"]', "data.max_length=32"]
    words += ["run.name=two", "data.subset={}", "--unset", "data.filter", "--unset", "samples"]
    words += ["precision.dtype=fp32", "precision.device=cpu", "--unset", "bag"]
    assert train.main(["--config", str(ROOT / "configs/imdb_lora.toml"), *words]) == 0
    return folder / "two"


def figures(run):
    """All that was measured, without times."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [json.loads(line) for line in lines]
    return [{k: v for k, v in line.items() if k != "train/tokens_per_s"} for line in kept]


def help_seconds(script):
    """The quickest of three times that a script takes for --help."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        words = [sys.executable, script, "--help"]
        subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begin)
    return min(times)


def write_rows(path, rows):
    """Rows as a file of JSON lines; its name."""
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def result_of(run):
    """What result.json of a run holds."""
    return json.loads((run / "result.json").read_text(encoding="utf-8"))


def weights(run):
    """The tensors of a run's published model, and of a base that lies in it."""
    from safetensors.torch import load_file

    files = (run / "model").rglob("*.safetensors")
    return {name: tensor for path in files for name, tensor in load_file(path).items()}


def own_head(answer):
    """The code of a head whose forward() returns `answer`, of self.out, hidden and mask."""
    return f"""
from torch import nn


class Head(nn.Module):
    def __init__(self, hidden_size, num_labels, dropout):
        super().__init__()
        self.out = nn.Linear(hidden_size, num_labels)

    def forward(self, hidden, mask):
        return {answer}
"""


@pytest.fixture
def new_cache(tmp_path, monkeypatch):
    """A cache of the test's own: nothing is there before, compiled kernels neither."""
    monkeypatch.setenv("OPENLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def recipe(tmp_path, tiny_folder, reviews_csv):
    """Writes a recipe for the tiny model and the few reviews; gives its path.

    `recipe(train={"epochs": 1}, lora=None)` changes keys of a section or leaves a section out.
    """
    import tomli_w

    def write(**sections):
        tables = {
            "run": {"name": "tiny", "dir": str(tmp_path / "runs"), "keep": 2},
            "model": {"source": str(tiny_folder)},
            "head": {"kind": "linear", "pool": "mean"},
            "lora": {"rank": 2, "alpha": 4.0, "targets": ["query", "value"]},
            "data": {"source": str(reviews_csv), "max_length": 32, "validation": 12, "test": 12},
            "train": {"epochs": 2, "micro_batch_size": 4, "accumulate": 2, "lr": 1e-2},
            "precision": {"dtype": "fp32", "device": "cpu"},
            "samples": {"texts": ["good film", "bad film"]},
        }
        for name, changes in sections.items():
            if changes is None:
                del tables[name]
            else:
                tables.setdefault(name, {}).update(changes)
        path = tmp_path / "recipe.toml"
        path.write_text(tomli_w.dumps(tables), encoding="utf-8")
        return path

    return write


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def chat_tokenizer():
    """A byte-level BPE tokenizer with ChatML's two tokens, of which the second ends a reply; it
    names no pad token."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    raw = ByteLevelBPETokenizer()
    raw.train_from_iterator(
        ["user and assistant say hello and good day to each other"] * 4, 320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=raw._tokenizer, eos_token="<|im_end|>", bos_token="<|im_start|>",
        chat_template=CHATML,
    )  # fmt: skip


def make_chats(rows):
    """Conversations of one to three exchanges, all different."""
    words = ["hello", "good day", "and you", "say hello", "to each other"]
    return [
        [
            {"role": role, "content": f"{words[(i + turn) % 5]} {role[0]} {i}"}
            for turn in range(1 + i % 3)
            for role in ("user", "assistant")
        ]
        for i in range(rows)
    ]


@pytest.fixture(scope="session")
def chat_place(chat_tokenizer):
    """chat_place(folder): a tiny random Llama, conversations and a recipe in it; the folder."""
    import tomli_w
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def fill(folder):
        config = LlamaConfig(
            vocab_size=len(chat_tokenizer), hidden_size=32, intermediate_size=48,
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=128, bos_token_id=1, eos_token_id=2, initializer_range=0.2,
        )  # fmt: skip
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder / "model")
        chat_tokenizer.save_pretrained(folder / "model")
        write_rows(folder / "chats.jsonl", [{"messages": chat} for chat in make_chats(60)])
        recipe = {
            "run": {"name": "tiny", "dir": str(folder / "runs"), "keep": 2, "save_every": 2},
            "task": {"kind": "chat"},
            "model": {"source": str(folder / "model")},
            "lora": {"rank": 2, "targets": "all-linear"},
            "data": {
                "source": str(folder / "chats.jsonl"), "max_length": 64, "packing": True,
                "overlong": "right", "validation": 12, "test": 12,
            },
            "train": {"epochs": 1, "micro_batch_size": 2, "accumulate": 2, "lr": 1e-2},
            "precision": {"dtype": "fp32", "device": "cpu"},
            "generate": {"max_tokens": 6, "replies": 3},
            "samples": {"texts": ["hello", "good day"]},
        }  # fmt: skip
        (folder / "chat.toml").write_text(tomli_w.dumps(recipe), encoding="utf-8")
        return folder

    return fill


@pytest.fixture(scope="session")
def assert_linear():
    """`assert_linear(run, unit)`: ten times the text may take `run` some ten times as long.

    The text is the unit over and over; what stands in it before "…" only begins the text. Times
    are the processor's, the least of several, and count only past a floor: a busy machine fails
    nothing.
    """

    def measure(run, text, repeats):
        times = []
        for _ in range(repeats):
            start = time.thread_time()
            run(text)
            times.append(time.thread_time() - start)
        return min(times)

    def check(run, unit, floor=0.05):
        start, _, unit = unit.rpartition("…")
        short, long = (start + unit * (length // len(unit)) for length in (10_000, 100_000))
        first = measure(run, short, 1)
        assert first < 2, f"{unit!r}: {first:.1f} s for 10,000 characters"
        ratio = 0.0
        for repeats in (1, 3, 5):
            slow = measure(run, long, repeats)
            ratio = slow / max(1e-9, measure(run, short, repeats))
            if slow < floor or ratio < 20:
                return
        pytest.fail(f"{unit!r}: ten times the text takes {ratio:.0f} times as long")

    return check


@pytest.fixture
def start(request, recipe, tmp_path, capsys):
    """start("name", "setting=value", …) -> (run folder, what was said), with the module's SETTINGS
    in the recipe; {runs} in a setting is the folder of the runs."""
    import train

    def run(name, *words, code=0):
        words = [word.replace("{runs}", str(tmp_path / "runs")) for word in words]
        path = recipe(**request.module.SETTINGS)
        assert train.main(["--config", str(path), *words, f"run.name={name}"]) == code
        captured = capsys.readouterr()
        return tmp_path / "runs" / name, " ".join((captured.out + captured.err).split())

    return run


@pytest.fixture
def taught(start):
    """A student's words, once its teacher is trained."""
    start("teacher", "train.lr=0.02")
    return ["distill.teacher={runs}/teacher"]
