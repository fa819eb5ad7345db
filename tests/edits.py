"""Files of runs and models as somebody edits them."""

import json
from pathlib import Path
from typing import Any


def edit(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; those that are `...` go."""
    held = json.loads(path.read_text(encoding="utf-8")) | values
    held = {key: value for key, value in held.items() if value is not ...}
    path.write_text(json.dumps(held), encoding="utf-8")
