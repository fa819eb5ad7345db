"""Writes what is generated from the schema: `python -m configs.reference`.

The table of settings goes between the markers of configs/README.md, and the JSON schema by which
editors complete and check the recipes goes to configs/schema.json.
"""

import json
from pathlib import Path

from configs.fields import Setting, list_settings
from configs.schema import Config

FOLDER = Path(__file__).parent
BEGIN = "<!-- reference: written by python -m configs.reference, do not edit -->"
END = "<!-- end of reference -->"


def render_table() -> str:
    """The Markdown reference: a heading and a table for each section, in the schema's order."""
    lines: list[str] = []
    section = ""
    for setting in list_settings().values():
        if setting.section != section:
            section = setting.section
            lines += ["", f"### [{section}]" if section else f"### [[{setting.key}]]", ""]
            lines += ["| key | allowed | default | changes the run | |", "|---|---|---|---|---|"]
        lines.append(_render_row(setting))
    return "\n".join([*lines, ""])


def _render_row(setting: Setting) -> str:
    default = "not set" if setting.default is None else f"`{json.dumps(setting.default)}`"
    default = "must be given" if setting.required else default
    changes = "yes" if setting.trajectory else "no"
    cells = [f"`{setting.key}`", setting.allowed, default, changes, setting.sentence]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def render_readme(text: str) -> str:
    """The README with the part between its markers replaced. ValueError if one is missing."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"configs/README.md: expected one line {BEGIN!r} and one {END!r}")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{render_table()}\n{END}{rest.partition(END)[2]}"


def render_schema() -> str:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(schema | Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    readme = FOLDER / "README.md"
    readme.write_text(render_readme(readme.read_text(encoding="utf-8")), encoding="utf-8")
    (FOLDER / "schema.json").write_text(render_schema(), encoding="utf-8")


if __name__ == "__main__":
    main()
