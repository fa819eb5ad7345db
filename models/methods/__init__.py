"""The methods of fine-tuning: one file each, one row here. What a method answers stands in
method.py; a recipe has at most one of their tables, and model.train says what else trains."""

from models.methods.adapter import Adapter
from models.methods.lora import LoRA
from models.methods.method import Method
from models.methods.own import OwnMethod
from models.methods.prefix import PrefixTuning
from models.methods.prompt import Prompt

__all__ = ["METHODS", "Method", "OwnMethod"]

METHODS: dict[str, type[Method]] = {
    method.kind: method for method in (LoRA, Adapter, Prompt, PrefixTuning, OwnMethod)
}
