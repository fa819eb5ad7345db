"""Every setting of a run: typed sections, one sentence a field.

This file knows the fields one by one; what must hold between them stands in relations.py, and
reading TOML and overrides in read.py. Sections are frozen, refuse unknown keys and take no value
of another type ("3" and true are no integers; an integer serves where a number is asked for).
`None` means "not set": TOML has no word for it, so such a key is left out or removed by --unset.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


def field(default: Any, doc: str, trajectory: bool = True, allowed: str | None = None) -> Any:
    """One setting: its default (`...`: must be given), a sentence, and its trajectory mark.

    `trajectory` says whether another value would change what is trained or what is measured;
    resuming refuses a difference there. It is true unless said otherwise, because a forgotten
    mark should stop a resume rather than mix two runs. `allowed` puts in words what a pattern
    allows; everything else is described from the type.
    """
    extra: dict[str, Any] = {"trajectory": trajectory}
    if allowed is not None:
        extra["allowed"] = allowed
    return Field(default, description=doc, json_schema_extra=extra)


Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Threads = Annotated[int, Field(ge=1, le=1024)]  # a system that has no more ends the process
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Rows = Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)]
Files = Text | Annotated[list[Text], Field(min_length=1)]
Steps = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)]
Layers = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]
Weights = Literal["balanced"] | Annotated[list[Positive], Field(min_length=2)]
Split = Literal["train", "validation", "test"]
Plain = str | int | float | bool
Character = Annotated[str, Field(min_length=1, max_length=1)]
Header = Literal["first line", "none"] | Annotated[list[Text], Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Clean(Section):
    """Cleaning of the texts before they are split; each step is counted in the data report."""

    html: bool = field(True, "Replace HTML tags by a space and entities by their characters.")
    control: bool = field(True, "Remove control characters, which no reader sees.")
    unicode: Literal["NFC", "NFKC", "none"] = field(
        "NFC", "Unicode normalisation, so that the same letter is always the same bytes."
    )
    spaces: bool = field(True, "Make one space of any run of white space and trim both ends.")
    min_chars: Count = field(1, "A text with fewer characters than this after cleaning is bad.")
    duplicates: bool = field(True, "Keep only the first of rows whose cleaned text is the same.")
    ends: bool = field(
        True,
        "Of task chat: remove white space at the ends of a turn. Inside turns html and spaces stay "
        "as they are, whatever is set above: answers hold code.",
    )


class Run(Section):
    """The run itself: its name, its place and its randomness."""

    name: Annotated[str, Field(pattern=r"^\w[\w.+=-]*$")] = field(
        ..., "Name of the run and of its folder.", False,
        "a folder name: letters, digits and _ . + = -, and a letter, digit or _ to begin with",
    )  # fmt: skip
    dir: Text = field("runs", "Folder that holds the run folders.", False)
    seed: Seed = field(0, "Seed of everything drawn: new weights, the order of rows, dropout.")
    deterministic: bool = field(False, "Use only deterministic kernels: same bits on CUDA, slower.")
    keep: Count = field(2, "How many of the newest checkpoints to keep, besides the best.", False)
    save_every: Count | None = field(
        None, "Steps between checkpoints, besides the one at each evaluation.", False
    )
    log_every: Count = field(1, "Steps between two lines of training metrics.", False)
    threads: Threads | None = field(None, "CPU threads torch may use; unset: torch's own choice.")


class Task(Section):
    """What the run is about."""

    kind: Literal["classify", "chat"] = field(
        "classify",
        "classify: texts with labels or numbers; chat: conversations, or any text that a language "
        "model goes on with.",
    )


class Model(Section):
    """The pretrained model to start from, and how much of it learns."""

    source: Text = field(
        ...,
        "The pretrained model: hub:NAME, a folder, package:PACKAGE/FOLDER or run:RUN_FOLDER; or "
        "ngrams, a bag of n-grams that starts from nothing.",
    )
    revision: Text | None = field(None, "Branch, tag or commit of a hub model.")
    dropout: Probability | None = field(
        None, "Overrides every dropout of the backbone; unset: as the model was published."
    )
    train: Annotated[str, Field(pattern=r"^(all|head|bias|last:[1-9][0-9]*)$")] | None = field(
        None,
        "What learns: all, only the head, or the head and every bias, or the last N layers; "
        "unset: head beside a method's table ([lora], [prompt], …), else all.",
        allowed='"all", "head", "bias" or "last:N" with N from 1',
    )
    cache: Literal["auto", "off"] = field(
        "auto",
        "auto: what frozen layers below all that learns make of a row is computed once and kept on "
        "disk, where that pays; their dropout is off then.",
    )
    activation_checkpointing: bool = field(
        False, "Recompute activations in the backward pass: less memory, more time."
    )
    compile: bool = field(False, "Compile the model with torch.compile: slow start, fast steps.")


class Head(Section):
    """The classifier on top of the backbone."""

    kind: Annotated[str, Field(pattern=r"^(native|linear|mlp|.+\.py:[A-Za-z_]\w*)$")] = field(
        "native",
        "native is the architecture's own classifier, linear and mlp sit on pooled hidden "
        "states, and FILE.py:CLASS is a head of your own (needs --allow-code).",
        allowed='"native", "linear", "mlp" or "FILE.py:CLASS"',
    )
    pool: Literal["cls", "mean", "last"] | None = field(
        None, "How the tokens become one vector: the first, the mean or the last real token."
    )
    dropout: Probability | None = field(None, "Dropout of the head; unset: the head's own default.")
    args: dict[str, Plain | list[Plain]] = field(
        {},
        "Named arguments for mlp (width, activation) or a head of your own.",
        allowed="table of text, numbers, true or false, and lists of these",
    )


class LoRA(Section):
    """Low-rank adapters: freeze the backbone and learn a small matrix beside each target."""

    rank: Count = field(8, "Rank of the learned update: its size and its freedom.")
    alpha: Positive = field(16.0, "The learned update is scaled by alpha / rank.")
    dropout: Probability = field(0.0, "Dropout on what goes into the adapters.")
    targets: Literal["all-linear"] | Annotated[list[Text], Field(min_length=1)] = field(
        ...,
        'Names of the layers that get an adapter, as they end: ["query", "value"]; or '
        '"all-linear".',
    )
    layers: Layers | None = field(
        None, "First and last layer (from 0, both included) that get one; unset: every one."
    )
    variant: Annotated[str, Field(pattern=r"^(lora|rslora|dora|.+\.py:[A-Za-z_]\w*)$")] = field(
        "lora",
        "rslora scales by alpha / sqrt(rank), dora learns the lengths of the weight's rows apart "
        "from their directions, and FILE.py:CLASS is one of your own (needs --allow-code).",
        allowed='"lora", "rslora", "dora" or "FILE.py:CLASS"',
    )
    init: Literal["kaiming", "pissa"] = field(
        "kaiming",
        "How adapters begin: kaiming at random, pissa with the largest singular values of the "
        "weight; either way the model begins as it was.",
    )
    plus_ratio: Positive = field(
        1.0, "LoRA+: the learning rate of the matrix B over that of A, such as 16."
    )
    rank_pattern: dict[str, Count] = field(
        {}, "Ranks of single layers: the end of a name, or a regular expression for it = rank."
    )
    alpha_pattern: dict[str, Positive] = field({}, "The same for alpha.")
    bias: Literal["none", "all", "lora_only"] = field(
        "none", "Which biases learn too: none, all of the backbone's, or those of adapted layers."
    )


class Adapter(Section):
    """Bottleneck adapters: freeze the backbone and learn a small network behind its parts."""

    size: Count = field(32, "Width of the bottleneck.")
    placement: Literal["both", "feed_forward"] = field(
        "both", "Behind attention and feed-forward (Houlsby), or behind feed-forward (Pfeiffer)."
    )
    activation: Literal["gelu", "relu", "tanh"] = field("gelu", "What bends the bottleneck.")
    norms: bool = field(False, "Train the norms of the adapted layers too, as Houlsby does.")


class Prompt(Section):
    """Prompt tuning: freeze the backbone and learn vectors that stand in front of each text."""

    tokens: Count = field(20, "How many; each takes a position of the model's from the text.")
    text: Text | None = field(
        None, "A text whose vectors they start from; unset: random ones, as large as words' are."
    )


class Prefix(Section):
    """Prefix tuning: freeze the backbone and learn keys and values in each of its layers."""

    tokens: Count = field(20, "How many stand before the keys and values of each text.")


class Own(Section):
    """A method of your own: freeze the backbone and learn what a class in your file puts in."""

    kind: Annotated[str, Field(pattern=r"^.+\.py:[A-Za-z_]\w*$")] = field(
        ..., "The class, a models.methods.Method (needs --allow-code).", allowed='"FILE.py:CLASS"'
    )
    args: dict[str, Plain | list[Plain]] = field(
        {},
        "Its named arguments.",
        allowed="table of text, numbers, true or false, and lists of these",
    )


class Distill(Section):
    """Learn from a teacher: a trained classifier whose answers to the training rows are targets."""

    teacher: Text = field(
        ...,
        "A trained classifier of the same labels: a finished run (runs/NAME or run:NAME), or what "
        "model.source takes.",
    )
    temperature: Positive = field(
        2.0, "Both answers are divided by it: above 1 the teacher's unlikely classes count more."
    )
    weight: Annotated[float, Field(ge=0, le=1)] = field(
        0.5, "Share of the teacher's answers in the loss; the labels have the rest."
    )
    hidden: NotNegative = field(
        0.0,
        "Weight of a third part: each layer's mean state turned towards the teacher's; 0: none.",
    )
    student: Annotated[str, Field(pattern=r"^(ngrams|layers:([2-9]|[1-9][0-9]+))$")] | None = field(
        None,
        "ngrams: a bag of n-grams; layers:N: every Nth layer of the teacher, with its weights; "
        "neither goes with a model.source. Unset: model.source as it is.",
        allowed='"ngrams", or "layers:N" with N from 2',
    )


class Bag(Section):
    """A bag of n-grams beside the encoder: both answer, and validation rows weigh the two."""

    rows: Literal["all", "train"] = field(
        "all",
        "Training rows that the bag learns from: all, those too that data.subset keeps from the "
        "encoder; or train, the encoder's own.",
    )


class Contrast(Section):
    """Learn from pairs of rows too: texts of one class move together, those of two apart."""

    pairs: Annotated[int, Field(ge=2)] = field(
        512, "Pairs drawn for an epoch, which has twice as many rows; half are of one class."
    )
    weight: Annotated[float, Field(gt=0, lt=1)] = field(
        0.5, "Share of the pairs in the loss; the labels have the rest."
    )


class Data(Section):
    """The rows: where they are, how they are read, cleaned, split and cut."""

    source: Files | dict[Split, Files] = field(
        ...,
        "The rows: a file, a glob or a list of files (csv, tsv, jsonl, parquet), hub:NAME or "
        "package:PACKAGE/FILE; or a table that gives them for each split.",
    )
    config: Text | None = field(None, "Configuration name of a hub data set that has several.")
    revision: Text | None = field(None, "Branch, tag or commit of a hub data set.")
    splits: dict[Split, Text] | None = field(
        None, "Our split = the hub data set's split; unset: those of the same names."
    )
    encoding: Text = field(
        "utf-8",
        "Encoding of text files, as Python names it (cp1252, gb18030, …); a byte order mark in a "
        "file overrules it.",
    )
    delimiter: Character | None = field(
        None,
        "What stands between the fields of CSV and TSV files; unset: a comma, in .tsv a tab.",
        allowed="one character",
    )
    quoting: Literal["standard", "none"] | None = field(
        None,
        'Whether "…" encloses a field of CSV and TSV files (standard), or a quote is a letter like '
        "any other (none); unset: standard, but none for a .tsv that reads only so.",
    )
    escape: Character | None = field(
        None,
        "Character of CSV and TSV files that makes the next one an ordinary letter; unset: none.",
        allowed="one character",
    )
    header: Header = field(
        "first line",
        "Where the column names of CSV, TSV and Excel files stand: in the first line, nowhere "
        "(none: they are called column_1, column_2, …), or here as a list.",
        allowed='"first line", "none" or a list of names',
    )
    filter: Text | None = field(None, 'Keep only the rows for which this holds: source == "imdb".')
    text: Text | Annotated[list[Text], Field(min_length=1, max_length=2)] = field(
        "text", "Column of the text, or two columns for pairs of texts."
    )
    label: Text | Annotated[list[Text], Field(min_length=1)] = field(
        "label", "Column of the label, or a list of 0/1 columns where several can hold at once."
    )
    labels: Annotated[list[Text], Field(min_length=2)] | None = field(
        None,
        "Names of the classes in order; where the column holds the integers 0 to C-1 and the "
        "names are no integers, the names are given to the integers in order; "
        "unset: taken from the data.",
    )
    label_separator: Text | None = field(
        None,
        "What stands between the labels of one cell, where several can hold at once: joy,anger.",
    )
    kind: Literal["auto", "single", "multi", "regression"] = field(
        "auto", "What a label is: one class, several at once, or a number; auto asks the data."
    )
    messages: Text | Annotated[list[Text], Field(min_length=2, max_length=3)] = field(
        "messages",
        "Of task chat: the column of the conversation (a list of turns, or a text to learn whole); "
        "or two columns, prompt and completion; or three, instruction, input and output.",
    )
    roles: (
        Literal["alternate"] | dict[Text, Literal["system", "user", "assistant", "tool"]] | None
    ) = field(
        None,
        'Of task chat: who speaks, by the name in the data: { human = "user" }; or alternate: the '
        "first speaker of a conversation is the user, the other one the assistant; unset: by the "
        "names in use.",
    )
    turn: dict[Literal["role", "content"], Text] | None = field(
        None,
        "Of task chat: the fields of a turn, { role = \"sender\", content = \"text\" }; unset: "
        "role and content, or from and value.",
    )  # fmt: skip
    template: Text | None = field(
        None,
        "Of task chat: a chat template in Jinja, or the file of one; unset: the model's own, else "
        "plain lines of role and text.",
    )
    learn: Literal["replies", "all", "last"] = field(
        "replies",
        "Of task chat: the tokens in the loss: the assistant's, all, or those of its last turn.",
    )
    packing: bool = field(
        False,
        "Of task chat: several conversations in a row of max_length tokens, each on its own.",
    )
    overlong: Literal["left", "right", "drop", "split"] | None = field(
        None,
        "Of task chat: what becomes of a conversation of more than max_length tokens: it loses its "
        "beginning (left) or its end (right), is left out, or split between turns; unset: it is an "
        "error.",
    )
    clean: Clean = Clean()
    on_bad_row: Literal["error", "skip"] = field(
        "error", "A row that cannot be used stops the run, or is skipped and counted."
    )
    on_overlap: Literal["refuse", "drop", "warn"] = field(
        "refuse",
        "The same text on both sides of a cut: refuse to run, drop it from the training side, "
        "or only warn.",
    )
    validation: Rows = field(
        0.1,
        "Share or number of rows cut off for validation where the source has no such split; "
        "0: none.",
    )
    test: Rows = field(
        0.1,
        "Share or number of rows cut off for the test where the source has no such split; 0: none.",
    )
    group: Text | None = field(
        None,
        "Column whose values are never on two sides of those cuts: a film, an author, a patient; "
        "splits that the source has stay as they are.",
    )
    drop_rows: Text | None = field(
        None,
        "A file of JSON lines that names rows to leave out, as check.py writes it and a person "
        "edits it: whoever agrees with a line keeps it.",
    )
    split_seed: Seed = field(42, "Seed of those cuts: apart from run.seed, so seeds share rows.")
    stream: bool = field(
        False,
        "Read the training rows while the run trains, and keep none of them: for what is larger "
        "than the disk, or takes long to encode first.",
    )
    shuffle_buffer: Count = field(
        10_000, "Of a stream: rows that follow each other and are shuffled among each other."
    )
    subset: dict[Split, Count] = field({}, "Use only this many rows of a split, drawn at random.")
    subset_seed: Seed = field(42, "Seed of that draw.")
    max_length: Annotated[int, Field(ge=3)] = field(
        256, "Longest row in tokens, special ones included; what is longer is truncated."
    )
    truncation: Literal["right", "left"] = field(
        "right", "The end that truncation cuts away: right keeps the beginning of the text."
    )
    long: Literal["cut", "head_tail", "chunks"] = field(
        "cut",
        "What is read of a text that is longer than max_length: cut, what truncation leaves; "
        "head_tail, its beginning and its end; chunks, all of it in windows of max_length tokens, "
        "whose pooled vectors become one.",
    )
    head_tokens: Count | None = field(
        None,
        "With head_tail: tokens of the beginning, special ones not counted; the end has the rest; "
        "unset: a quarter of max_length.",
    )
    stride: Annotated[int, Field(ge=0)] | None = field(
        None,
        "With chunks: tokens that a window shares with the one before it, as transformers counts "
        "them; unset: a quarter of max_length.",
    )
    max_windows: Count | None = field(
        None,
        "With chunks: most windows of a text, which bounds memory; what a longer text has beyond "
        "them is cut, as truncation says; unset: 16.",
    )
    window_pool: Literal["mean", "max"] | None = field(
        None,
        "With chunks: how the pooled vectors of a text's windows become one: averaged, or the "
        "largest in each dimension; unset: mean.",
    )
    cache: bool = field(True, "Keep the tokenised rows on disk for the next run.", False)
    workers: Annotated[int, Field(ge=0)] = field(
        0, "Processes that prepare batches; 0: a thread of the training process.", False
    )


class Train(Section):
    """Optimisation: how long, in what batches, and how fast."""

    epochs: Count = field(3, "How often every training row is seen.")
    max_steps: Count | None = field(None, "Stop after this many steps, should it come first.")
    micro_batch_size: Count = field(16, "Rows in one forward pass: what memory must hold.")
    accumulate: Count = field(1, "Micro-batches summed into one optimizer step.")
    lr: Positive = field(2e-5, "Peak learning rate of everything but what head_lr sets.")
    head_lr: Positive | None = field(None, "Peak learning rate of the head; unset: the same as lr.")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = field(
        1.0, "Factor of the rate from a layer to the one below it, so that low layers move less."
    )
    unfreeze: Annotated[float, Field(ge=0, lt=1)] = field(
        0.0,
        "Share of the steps over which layers begin to move, the last one first; 0: all at once.",
    )
    weight_decay: NotNegative = field(
        0.01, "Decay of the weight matrices; biases and norms are never decayed."
    )
    decay: Literal["decoupled", "l2"] = field(
        "decoupled",
        "How weights decay: beside the gradient (AdamW), or as weight_decay / 2 times their square "
        "in the loss (Adam), whose optimum is that of regularised logistic regression.",
    )
    betas: Annotated[list[Probability], Field(min_length=2, max_length=2)] = field(
        [0.9, 0.999], "AdamW's memory of the gradient and of its square."
    )
    eps: Positive = field(1e-8, "AdamW's guard against division by zero.")
    schedule: Literal["linear", "cosine", "constant"] = field(
        "linear", "How the learning rate goes from its peak: down to zero, or not at all."
    )
    warmup: Steps = field(
        0.06, "Steps over which the learning rate rises from zero: a number, or a share of all."
    )
    max_grad_norm: NotNegative = field(
        1.0, "Gradients with a larger norm are scaled down to it; 0: never."
    )
    loss: Annotated[str, Field(pattern=r"^.+\.py:[A-Za-z_]\w*$")] | None = field(
        None,
        "A loss of your own, (logits, labels) to the sum over the rows (needs --allow-code); "
        "unset: what goes with the labels.",
        allowed='"FILE.py:FUNCTION"',
    )
    class_weights: Weights | None = field(
        None, "Weight of each class in the loss: balanced makes rare ones count more."
    )
    label_smoothing: Probability = field(
        0.0, "Share of the target spread evenly over all classes, against overconfidence."
    )


class Eval(Section):
    """Evaluation on the validation rows while training."""

    every: Literal["epoch"] | Count = field(
        "epoch", "When to evaluate: after each epoch, or after this many steps."
    )
    micro_batch_size: Literal["auto"] | Count = field(
        "auto",
        "Long rows in a forward pass, of short ones more; auto: 8, on CUDA what its free memory "
        "takes.",
        False,
    )
    metric: Literal[
        "auto", "loss", "accuracy", "macro_f1", "weighted_f1", "balanced_accuracy", "mcc",
        "auroc", "average_precision", "rmse", "mae", "r2", "spearman", "perplexity",
        "token_accuracy",
    ] = field(
        "auto",
        "What makes a checkpoint the best, and what patience looks at; auto: accuracy for classes, "
        "else loss.",
    )  # fmt: skip
    baseline: bool = field(
        True,
        "Beside the test figure: a bag of words on the same rows; needs scikit-learn.",
        False,
    )
    patience: Count | None = field(
        None, "Stop after this many evaluations without a better one; unset: never."
    )
    slices: Annotated[list[Text], Field(max_length=20)] = field(
        [],
        "Columns by whose values the test rows are looked at apart; length is the length of the "
        "text in tokens, label the row's own class.",
        False,
    )


class Decide(Section):
    """From logits to an answer, fitted on the validation rows once the training is done."""

    calibrate: bool = field(
        True,
        "Fit a temperature, so that probabilities say how often answers are right, and of several "
        "labels a threshold for each.",
        False,
    )
    min_precision: Annotated[float, Field(gt=0, lt=1)] | None = field(
        None,
        "Answers that are too little sure for so large a share of them to be right are marked as "
        "unsure; unset: none.",
        False,
    )


class Precision(Section):
    """Number format and device."""

    dtype: Literal["auto", "fp32", "bf16", "fp16"] = field(
        "auto", "Format of the matrix products; the weights themselves are always fp32."
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?|mps)$")] = field(
        "auto", "Where to compute; auto takes a GPU where there is one; mps is untested.",
        allowed='"auto", "cpu", "cuda", "cuda:N" or "mps"',
    )  # fmt: skip
    tf32: bool = field(
        False, "On CUDA: round the factors of fp32 products to TF32: faster, 11 bits for 24."
    )


class Parallel(Section):
    """Several processes, as torchrun starts them."""

    strategy: Literal["auto", "ddp", "fsdp"] = field(
        "auto",
        "ddp: the whole model on each; fsdp: weights, gradients and optimizer in shards; auto: ddp "
        "where it fits.",
        False,
    )
    shard: Literal["full", "grad_op", "hybrid"] = field(
        "full",
        "Of fsdp: full (ZeRO-3); grad_op (ZeRO-2): weights are gathered once a step and stay; "
        "hybrid: shards within a machine, a copy on each.",
        False,
    )
    tensor: Count = field(
        1, "So many neighbouring processes split every layer between them.", False
    )
    offload: bool = field(
        False,
        "Of fsdp on GPUs: keep the shards on the host; slower, for models that fit nowhere.",
        False,
    )
    gathered_gib: Annotated[int, Field(ge=0)] = field(
        8,
        "Of fsdp: checkpoints of more GiB are written in parts, one a process, into a folder that "
        "all share; 0: all of them.",
        False,
    )
    timeout: Positive = field(
        30.0, "Minutes that processes wait for one that does not come, before the run ends.", False
    )


class Speed(Section):
    """Fast paths: each gives the same training as the plain code, and can be switched off."""

    plain: bool = field(False, "No fast path at all, whatever the switches below say.")
    attention: bool = field(True, "Attention for each text on its own, dropout included.")
    dropout: bool = field(True, "On a CPU: dropout masks from a hash, not serial random numbers.")
    unpad: bool = field(True, "Hardly any arithmetic on padding; needs attention.")
    frozen: bool = field(True, "Keep frozen linear weights in precision.dtype: no cast each time.")
    lora: bool = field(True, "Each LoRA layer as one function: no extra passes over its output.")
    linear: bool = field(True, "On a CPU: oneDNN adds the bias of a layer as it writes its output.")
    qkv: bool = field(
        True,
        "Query, key and value read their input as one, in decoders gate and up too; needs unpad.",
    )
    last_layer: bool = field(
        True,
        "Where the head reads only the first token, the last layer works out no other; "
        "needs unpad.",
    )
    gelu: bool = field(True, "On a CPU: a native backward pass of GELU, into the memory of x.")
    gate: bool = field(
        True,
        "On a CPU: a decoder's gated activation and the product behind it as one; needs unpad.",
    )
    rotary: bool = field(
        True, "On a CPU: rotary positions in the memory of queries and keys; needs unpad."
    )
    norm: bool = field(
        True,
        "On a CPU: dropout, residual and norm as one; needs unpad, and dropout where there is any.",
    )
    compile: bool = field(
        True, "On CUDA: parts of each layer by torch.compile: slow first step; needs unpad."
    )
    native: Literal["auto", "on", "off"] = field(
        "auto",
        "On a CPU: compiled kernels; auto: without a compiler plain torch, no gelu, gate or norm.",
    )
    allocator: bool = field(True, "On Linux: keep freed memory, against page faults.", False)


class Samples(Section):
    """Texts to watch."""

    texts: list[Text] = field(
        [],
        "Texts, of task chat prompts, whose answers are shown before and after training.",
        False,
    )


class Generate(Section):
    """Replies of a language model (task chat)."""

    max_tokens: Count = field(128, "Most tokens of a reply.", False)
    temperature: NotNegative = field(
        0.0, "0: always the likeliest token; above: drawn, the more freely the higher.", False
    )
    top_k: Count | None = field(
        None, "Draw from so many of the likeliest tokens; unset: of all.", False
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = field(
        1.0, "Draw from the likeliest tokens that together have this probability.", False
    )
    repetition_penalty: Positive = field(
        1.0, "Logits of tokens that occurred are divided by it: above 1, fewer repetitions.", False
    )
    replies: Annotated[int, Field(ge=0)] = field(
        16, "Test conversations whose last reply is written anew before and after training.", False
    )


class Expect(Section):
    """A text with what the trained model has to answer to it."""

    text: Text = field(..., "The text; of a pair the first one.", False)
    text_pair: Text | None = field(None, "The second text, where rows are pairs.", False)
    label: Text | list[Text] | int | float | None = field(
        None, "What is to be answered: a class, a list of classes (all of them and no other), or a "
        "number.", False,
    )  # fmt: skip
    not_label: Text | Annotated[list[Text], Field(min_length=1)] | None = field(
        None, "In place of label: a class that must not be answered, or several.", False
    )
    min_probability: Annotated[float, Field(gt=0, le=1)] | None = field(
        None, "Least probability of label, of each of them where there are several.", False
    )
    within: NotNegative | None = field(
        None, "How far a number may be off; needed where labels are numbers.", False
    )


class Report(Section):
    """The page of a run, report.html."""

    texts: bool = field(
        True,
        "Whether the page shows texts of the rows; false leaves them out, and it says so.",
        False,
    )


# sections: at most one in a recipe
METHODS = ("lora", "adapter", "prompt", "prefix", "method")


class Config(Section):
    """A whole run. Read it with configs.read.read_config, which also checks the relations."""

    run: Run
    task: Task = Task()
    model: Model
    head: Head = Head()
    lora: LoRA | None = None
    adapter: Adapter | None = None
    prompt: Prompt | None = None
    prefix: Prefix | None = None
    method: Own | None = None
    distill: Distill | None = None
    bag: Bag | None = None
    contrast: Contrast | None = None
    data: Data
    train: Train = Train()
    eval: Eval = Eval()
    decide: Decide = Decide()
    precision: Precision = Precision()
    parallel: Parallel = Parallel()
    speed: Speed = Speed()
    samples: Samples = Samples()
    generate: Generate = Generate()
    expect: list[Expect] = field(
        [],
        "What the trained model has to answer; each is checked at the end, and with --strict one "
        "that is not met makes the exit status 3.",
        False,
        "tables [[expect]] of text, text_pair, label or not_label, min_probability, within",
    )
    report: Report = Report()
