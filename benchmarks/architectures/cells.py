"""One way to fine-tune on one architecture: what must hold of it, on the smallest model.

A way is refused (a ValueError, whose words are kept), or its model answers at first as without it
(unless the method says otherwise), two steps move what was declared and nothing else, a model built
anew goes on from the checkpoint of the first step to the same bits, and so does the export answer.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.architectures.check import TEXTS, make_folder
from data.encode import encode_texts
from data.loaders import Padding, collate
from data.long import LengthArgs
from engine.checkpoint import load_optimizer, load_weights, save_checkpoint
from engine.losses import cross_entropy, logits_of
from engine.optim import build_optimizer, parameter_groups
from engine.plan import Progress
from engine.randomness import preserve_randomness, seed_forward
from engine.storage import step_folder
from models.build import Built, ModelArgs, build_model
from models.export import export_model, load_exported
from models.fast.speed import SpeedArgs, speed_up
from models.heads import is_language_model
from models.language import head_of, hidden_of, packs
from models.load import load_tokenizer
from models.methods import METHODS
from models.methods.method import added_parameters
from models.names import is_below
from models.trainable import trains_whole

WAYS: dict[str, dict[str, Any]] = {
    "head": {"train": "head"},
    "last:1": {"train": "last:1"},
    "bias": {"train": "bias"},
    "all": {"train": "all"},
    **{
        name: {"method": method(**values)}
        for method in METHODS.values()
        for name, values in method.small.items()
    },
}
SEED, RATE = 3, 0.01
LABELS = torch.tensor([0, 1, 0, 1])  # (B,) of TEXTS
ANSWERS = "answers.safetensors"  # beside an export: a batch and the logits that it gave


@dataclass
class Subject:
    """An architecture's random model in `folder`. `refused`: why it takes no training at all;
    `plain`: what its model answers as it is; `packs`: why packed rows of it would mix."""

    folder: Path
    chat: bool = False  # a language model, and no classifier
    tokenizer: Any = None
    inputs: dict[str, Tensor] = field(default_factory=dict)
    plain: Tensor | None = None
    refused: str | None = None
    packs: str | None = None

    def args(self, way: str) -> ModelArgs:
        about: dict[str, Any] = {"num_labels": 2, "label_names": ("bad", "good")}
        if self.chat:
            about = {"kind": "chat"}
        return ModelArgs(source=str(self.folder), allow_code=True, **about, **WAYS[way])


@dataclass
class Cell:
    """One cell of the table. `refused`: why it does not begin; `faults`: what must not be."""

    refused: str | None = None
    faults: list[str] = field(default_factory=list)
    export: Path | None = None


def make_subject(model_type: str, folder: Path, chat: bool = False) -> Subject:
    """An architecture's random model with a batch of texts."""
    subject = Subject(make_folder(model_type, folder / "model", chat), chat)
    try:
        subject.tokenizer = load_tokenizer(str(subject.folder), chat=chat)
        model = build_model(subject.args("all"), subject.tokenizer, SEED).model
    except ValueError as error:
        subject.refused = str(error)
        return subject
    rows = encode_texts(subject.tokenizer, TEXTS, None, LengthArgs(24))
    subject.inputs = collate(rows, Padding(subject.tokenizer.pad_token_id))["inputs"]
    subject.plain = answer(model, subject.inputs)
    subject.packs = packs(model) if chat else None
    return subject


def try_way(subject: Subject, way: str, folder: Path) -> Cell:
    """A cell, tried in an empty folder."""
    if subject.refused:
        return Cell(subject.refused)
    args = subject.args(way)
    try:
        built = build_model(args, subject.tokenizer, SEED)
    except ValueError as error:
        return Cell(str(error))
    cell, model = Cell(export=folder / "model"), built.model
    cell.faults += start_faults(subject, args, model)
    speed_up(model, SpeedArgs(), torch.device("cpu"), torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = make_optimizer(built)
    with preserve_randomness():
        step(model, optimizer, subject.inputs, 0)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        save_checkpoint(folder, model, optimizer, scaler, Progress(step=1), 1, {})
        reached = step(model, optimizer, subject.inputs, 1)
    cell.faults += moved_faults(built, args, before, reached)
    cell.faults += resumed_faults(subject, args, model, step_folder(folder, 1))
    export_model(built, args, subject.tokenizer, folder / "model")
    logits = answer(model, subject.inputs)
    save_file({**subject.inputs, "logits": logits}, folder / ANSWERS)
    cell.faults += reopened_faults(folder / "model")
    return cell


def make_optimizer(built: Built) -> torch.optim.Optimizer:
    groups = parameter_groups(built.model, RATE, None, built.head_names, 0.0)
    return build_optimizer(groups, (0.9, 0.999), 1e-8)


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: dict[str, Tensor], number: int
) -> set[str]:
    """One step on all texts, with the dropout of that number. Returns what a gradient reached."""
    seed_forward(SEED, 0, number)
    loss_sum(model.train(), inputs).backward()
    named = model.named_parameters()
    reached = {name for name, p in named if p.grad is not None and p.grad.any()}
    optimizer.step()
    optimizer.zero_grad()
    return reached


def loss_sum(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """The loss by LABELS, of a language model that of every token's next one."""
    if not is_language_model(model):
        return cross_entropy(logits_of(model(**inputs)), LABELS)
    ids, learned = inputs["input_ids"], inputs["attention_mask"].bool()[:, 1:]  # (B, T - 1)
    hidden = hidden_of(model, inputs)[:, :-1][learned]  # (n, D)
    return cross_entropy(head_of(model).logits(hidden), ids[:, 1:][learned])


@torch.no_grad()
def answer(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Logits (B, C) in evaluation mode, of a language model (n, V) of the real tokens."""
    logits = logits_of(model.eval()(**inputs))
    if is_language_model(model):
        logits = logits[inputs["attention_mask"].bool()]
    return logits.contiguous()


def start_faults(subject: Subject, args: ModelArgs, model: nn.Module) -> list[str]:
    """Whether the model answers at first as without the method, where the method says so."""
    assert subject.plain is not None
    logits = answer(model, subject.inputs)
    if not logits.isfinite().all():
        return ["its first logits are not finite"]
    apart = (logits - subject.plain).abs().max().item()
    same = apart < 1e-4 * max(1.0, subject.plain.abs().max().item())
    declared = args.method is None or args.method.identity
    if same == declared:
        return []
    return [f"its first logits are {apart:.1e} from those without it, identity is {declared}"]


def declared_parameters(built: Built, args: ModelArgs) -> set[str]:
    """Names of what may move: worked out from the recipe, not from requires_grad."""
    model = built.model
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    if args.trains == "all":
        return set(names)
    whole = trains_whole(model, args.trains)
    own: set[str] = set()
    if args.method is not None:
        whole = [*whole, *args.method.also_trains(model)]
        own = {name for added in added_parameters(model).values() for name in added}
    return own | built.head_names | {name for name in names if is_below(name, whole)}


def moved_faults(
    built: Built, args: ModelArgs, before: dict[str, Tensor], reached: set[str]
) -> list[str]:
    """What moved that was not declared, and what a method added that did not, though a gradient
    reached it: what none does (CANINE's last encoder, by its head), the plan of a run says."""
    declared = declared_parameters(built, args)
    named = built.model.named_parameters(remove_duplicate=False)
    moved = {name for name, parameter in named if not torch.equal(parameter, before[name])}
    faults = [f"moved: {name}" for name in sorted(moved - declared)]
    own = {name for added in added_parameters(built.model).values() for name in added}
    stuck = sorted((own & reached) - moved)
    return [*faults, *([f"not moved: {len(stuck)}: {', '.join(stuck[:4])}"] if stuck else [])]


def resumed_faults(
    subject: Subject, args: ModelArgs, model: nn.Module, checkpoint: Path
) -> list[str]:
    """A model built anew makes the second step from the checkpoint of the first."""
    again = build_model(args, subject.tokenizer, SEED)
    speed_up(again.model, SpeedArgs(), torch.device("cpu"), torch.float32)
    optimizer = make_optimizer(again)
    load_weights(checkpoint, again.model)
    load_optimizer(checkpoint, again.model, optimizer)
    with preserve_randomness():
        step(again.model, optimizer, subject.inputs, 1)
    state = again.model.state_dict()
    other = [n for n, tensor in model.state_dict().items() if not torch.equal(tensor, state[n])]
    return [f"resumed, {len(other)} tensors differ: {', '.join(other[:4])}"] if other else []


def reopened_faults(export: Path) -> list[str]:
    """An exported model beside what was answered before the export."""
    inputs = load_file(export.parent / ANSWERS)
    expected = inputs.pop("logits")
    model = load_exported(export, allow_code=True)[0]
    speed_up(model, SpeedArgs(), torch.device("cpu"), torch.float32)
    logits = answer(model, inputs)
    if torch.equal(logits, expected):
        return []
    return [f"opened again its logits are {(logits - expected).abs().max().item():.1e} apart"]
