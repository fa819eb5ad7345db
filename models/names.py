"""Dotted names of modules and parameters, and what is derived from them."""

import hashlib
import re
from collections.abc import Collection


def is_below(name: str, modules: Collection[str]) -> bool:
    """Whether a dotted name is one of these modules, or lies inside one."""
    return any(name == module or name.startswith(module + ".") for module in modules)


def is_suffix(target: str, name: str) -> bool:
    """Whether a dotted name ends in `target`, on the boundary of a dot."""
    return name == target or name.endswith("." + target)


def layer_number(name: str) -> int | None:
    """The layer a name belongs to: its first part that is a number."""
    match = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return int(match.group(1)) if match else None


def named_seed(seed: int, name: str) -> int:
    """A generator's seed for one named thing: what else is drawn, and when, cannot move it."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # 63 bits: what a generator takes
