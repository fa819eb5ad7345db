"""A method of a user's own: what it may do, what is refused, and what travels with the model."""

import json
from pathlib import Path

import pytest
import torch

from models.args import args_to_json
from models.export import export_model, load_exported
from models.fast.speed import SpeedArgs, speed_up
from models.methods.method import Method, added_modules, merge, unmerge
from models.methods.own import ASKED, OURS, OwnMethod
from models.snippet import loading_snippet

ROOT = Path(__file__).parents[2]
CODE = (ROOT / "examples/own_method.py").read_text(encoding="utf-8")


@pytest.fixture
def own(tmp_path):
    """`own(*changes, **args)`: the example with parts of its text replaced, as a method."""

    def write(*changes, **args):
        code = CODE
        for old, new in changes:
            assert old in code
            code = code.replace(old, new)
        path = tmp_path / "mine.py"
        path.write_text(code, encoding="utf-8")
        return OwnMethod(f"{path}:IA3", args)

    return write


def change(inject):
    """The example with a line before its layers are put in."""
    return ("        layers = linears_of", f"        {inject}\n        layers = linears_of")


REFUSED = {
    "no class": ([("class IA3", "class IA4")], "has no Method class 'IA3'; its classes are"),
    "raises": ([change("1 / 0")], r"inject failed: .*mine.py:33: ZeroDivisionError"),
    "no lines": ([("        return [f", "        [f")], "returned a NoneType; expected a list"),
    "lost": ([("self.base = base  #", "self.inner = base  #"), ("self.base(x)", "self.inner(x)")],
             "took bert.*weight away: .* keeps that one as self.base"),
    "loose": ([change("model.mine = nn.Parameter(torch.ones(2))")],
              "put mine outside of an Added module"),
    "changed": ([change("next(model.parameters()).data.mul_(2)")],
                "changed the values of bert.embeddings.word_embeddings.weight"),
    "nothing": ([change("return []")], "it would change nothing"),
    "head": ([("linears_of(model, exclude)", "linears_of(model, ())")],
             "put classifier where `exclude` says"),
    "also": ([("    def inject", "    def also_trains(self, model):\n        return ['no.such']\n\n"
              "    def inject")], "also_trains failed: .*no"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_method_that_breaks_the_contract_is_refused_with_what_it_did(make, own, case):
    changes, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make("bert", method=own(*changes), allow_code=True)


ANSWERS = """    identity = False
    in_front = 2

    def positions(self, model):
        return 5

    def start(self, model, tokenizer):
        for module in added_modules(model).values():
            module.scale.data.fill_(len(tokenizer("good")["input_ids"]))

"""


def test_all_that_a_method_answers_is_asked(make, own):
    answers = ("    def inject", f"{ANSWERS}    def inject")
    imports = ("import Added, Method", "import Added, Method, added_modules")
    method = own(imports, answers)
    built, _, tokenizer = make("bert", method=method, allow_code=True)
    assert (method.identity, method.in_front, method.positions(built.model)) == (False, 2, 5)
    assert tokenizer.model_max_length == 64 - 5
    scales = {s for m in added_modules(built.model).values() for s in m.scale.tolist()}
    assert scales == {len(tokenizer("good")["input_ids"])}


def test_every_question_is_passed_on_or_answered_here():
    """A question that is added to Method needs a place in one of the two."""
    questions = {name for name in vars(Method) if not name.startswith("_")}
    assert {*ASKED, *OURS} == questions - {"kind", "small"}
    assert questions & {*ASKED, *OURS} <= {*vars(OwnMethod), "peft", "drops_types"}


@pytest.mark.parametrize("name", OURS)
def test_a_class_that_answers_what_it_is_not_asked_is_refused_with_the_name(make, own, name):
    answer = ("    def inject", f"    {name} = None\n\n    def inject")
    with pytest.raises(ValueError, match=rf"IA3 defines {name}, which .* is not asked"):
        make("bert", method=own(answer), allow_code=True)


def test_a_start_that_changes_the_model_itself_is_refused(make, own):
    start = "    def start(self, model, tokenizer):\n"
    start += "        next(model.parameters()).data.mul_(2)\n\n"
    with pytest.raises(ValueError, match=r"start changed the values of bert.embeddings"):
        make("bert", method=own(("    def inject", start + "    def inject")), allow_code=True)


def test_arguments_go_by_name_and_others_are_refused_with_the_nearest(make, own):
    built, _, _ = make("bert", method=own(targets=["key"]), allow_code=True)
    assert {name.rpartition(".")[2] for name in added_modules(built.model)} == {"key"}
    with pytest.raises(ValueError, match=r"no argument 'target' .*did you mean 'targets'"):
        make("bert", method=own(target=["key"]), allow_code=True)


def test_it_needs_permission_and_what_ran_travels_with_the_model(
    make, own, stir, encode, logits_of, tmp_path
):
    with pytest.raises(ValueError, match=r"runs the code in .*mine.py; allow it"):
        make("bert", method=own())
    method = own(targets=["key", "value"])
    built, args, tokenizer = make("bert", method=method, allow_code=True)
    assert any("method: code of" in note and "mine.py:IA3" in note for note in built.notes)
    stir(built.model)
    own(("class IA3", "class Gone"))  # the file changes, what ran does not
    export_model(built, args, tokenizer, tmp_path / "model")
    record = json.loads((tmp_path / "model/openloop.json").read_text(encoding="utf-8"))
    assert record["method_code"]["class"] == "IA3"
    assert record["model"]["method"] == args_to_json(args)["method"]
    assert (tmp_path / "model/method_code.py").read_text(encoding="utf-8") == CODE
    assert not (tmp_path / "model/adapter_config.json").exists()
    with pytest.raises(ValueError, match="allow it with --allow-code"):
        load_exported(tmp_path / "model")
    model, _, again = load_exported(tmp_path / "model", allow_code=True)
    assert again.method == method
    batch = encode(tokenizer)
    assert torch.equal(logits_of(model, batch), logits_of(built.model, batch))
    assert "PeftModel" not in loading_snippet(tmp_path / "model", args)


def test_what_it_keeps_without_training_it_is_saved_too(
    make, own, stir, encode, logits_of, tmp_path
):
    scale = "self.scale = nn.Parameter(torch.ones(linear_size(base)[1]))"
    kept = scale + "\n        self.register_buffer('by', torch.ones(()))"
    method = own((scale, kept), ("* self.scale  #", "* self.scale * self.by  #"))
    built, args, tokenizer = make("bert", method=method, allow_code=True)
    for module in added_modules(built.model).values():
        module.by.fill_(1.5)
    export_model(built, args, tokenizer, tmp_path / "model")
    model, _, _ = load_exported(tmp_path / "model", allow_code=True)
    batch = encode(tokenizer)
    assert torch.equal(logits_of(model, batch), logits_of(built.model, batch))


def merging(own, forward):
    """The example as a product, with this beginning of its forward."""
    body = "        return self.base(x) * self.scale  # (..., out)\n"
    weight = (
        "        return self.base(x) + torch.nn.functional.linear(x, self.more())\n\n"
        "    def more(self):\n"
        "        return self.base.weight * (self.scale - 1).unsqueeze(1)\n\n"
        "    def merged_weight(self):\n"
        "        return self.base.weight + self.more()\n"
    )
    return own((body, forward + weight))


def test_a_method_that_says_how_it_merges_is_tried_and_put_back(make, own, stir, encode, logits_of):
    rest = "        if self.merged:\n            return self.base(x)\n"
    built, _, tokenizer = make("bert", method=merging(own, rest), allow_code=True)
    stir(built.model)
    batch, before = encode(tokenizer), built.model.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    expected = logits_of(built.model, batch)
    assert merge(built.model) < 1e-5
    torch.testing.assert_close(logits_of(built.model, batch), expected, atol=1e-5, rtol=1e-4)
    unmerge(built.model)
    assert all(torch.equal(t, before[name]) for name, t in built.model.state_dict().items())


def test_a_forward_that_goes_on_after_the_merge_is_refused_and_nothing_changes(make, own, stir):
    built, _, _ = make("bert", method=merging(own, ""), allow_code=True)
    stir(built.model)
    before = {name: tensor.clone() for name, tensor in built.model.state_dict().items()}
    with pytest.raises(ValueError, match=r"cannot be merged: its forward goes on"):
        merge(built.model)
    assert not any(module.merged for module in added_modules(built.model).values())
    assert all(torch.equal(t, before[name]) for name, t in built.model.state_dict().items())


def test_what_it_draws_depends_on_the_seed_alone_and_leaves_the_generator(make, own):
    drawn = ("torch.ones(linear_size(base)[1])", "torch.randn(linear_size(base)[1])")

    def scales(seed, before):
        torch.manual_seed(before)
        built, _, _ = make("bert", seed=seed, method=own(drawn), allow_code=True)
        after = torch.rand(1)
        torch.manual_seed(before)
        assert torch.equal(after, torch.rand(1))
        return torch.cat([module.scale for module in added_modules(built.model).values()])

    assert torch.equal(scales(3, 1), scales(3, 2))
    assert not torch.equal(scales(3, 1), scales(4, 1))


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_fast_paths_leave_it_as_it_is(make, own, stir, encode, logits_of, name):
    results = []
    for plain in (True, False):
        built, _, tokenizer = make(name, method=own(), head_kind="linear", allow_code=True)
        stir(built.model)
        speed = SpeedArgs(plain=plain, native="off")
        speed_up(built.model, speed, torch.device("cpu"), torch.float32)
        logits = logits_of(built.model.eval(), encode(tokenizer))
        logits.square().sum().backward()
        named = built.model.named_parameters()
        results.append({n: p.grad for n, p in named if p.grad is not None} | {"": logits})
    torch.testing.assert_close(results[1], results[0], atol=2e-5, rtol=1e-4)
