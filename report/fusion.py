"""An encoder and the bag of n-grams beside it, in words."""

from report.format import format_number


def fusion_line(encoder: float, bag: float, rows: int) -> str:
    """How the logits of the two are joined; no `rows` where these were too few to weigh them."""
    line = f"logits: {format_number(encoder)} encoder + {format_number(bag)} bag"
    if rows:
        return f"{line}, fitted on {rows:,} validation rows"
    return f"{line}: their mean, too few validation rows to weigh them"
