"""What must hold between [bag] and other settings; the rules are as in relations.py."""

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]
Verdict = str | None


def a_bag_stands_beside_an_encoder(s: Settings) -> Verdict:
    if s["bag"] and s["ngrams"]:
        return (
            f'bag: got [bag] beside model.source = "{s["model.source"]}", which is a bag of '
            "n-grams itself; remove the section (--unset bag), or start from a pretrained encoder"
        )
    return None


BAG_RULES = (a_bag_stands_beside_an_encoder,)
