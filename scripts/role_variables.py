"""Write the variable table of every role's README from its argument spec: role_variables.py [--check]; see scripts/generate.

The table stands between two markers and is the role's meta/argument_specs.yml, with the defaults of its defaults/main.yml.
Where both state a default they must agree.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parents[1] / "roles"
BEGIN, END = "<!-- variables -->", "<!-- /variables -->"
MARKUP = re.compile(r"\b(?:C|V|O|M|RV|I|B)\(([^)]*)\)")  # no value of ours holds a parenthesis

Options = dict[str, Any]


class Mismatch(Exception):
    """What is wrong with a role, for people."""


def main(arguments: list[str]) -> int:
    wrong = 0
    for spec in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        role = spec.parents[1]
        try:
            wrong += not bring_up_to_date(role, write="--check" not in arguments)
        except Mismatch as mismatch:
            print(f"roles/{role.name}: {mismatch}", file=sys.stderr)
            wrong += 1
    return 1 if wrong else 0


def bring_up_to_date(role: Path, *, write: bool) -> bool:
    """Return whether the README is as generated in the end."""
    readme = role / "README.md"
    if not readme.exists():
        raise Mismatch("has no README.md")
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise Mismatch(f"README.md: needs {BEGIN} and {END}, once each")
    head, rest = text.split(BEGIN)
    wanted = f"{head}{BEGIN}\n{table(role)}{END}{rest.split(END)[1]}"
    if wanted == text:
        return True
    if write:
        readme.write_text(wanted, encoding="utf-8")
        print(f"roles/{role.name}/README.md: written")
    else:
        print(f"roles/{role.name}/README.md: its variables are not those of meta/argument_specs.yml; run scripts/generate", file=sys.stderr)
    return write


def table(role: Path) -> str:
    """Return the table in Markdown."""
    options = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = load(role / "defaults" / "main.yml")
    if set(defaults) - set(options):
        raise Mismatch(f"meta/argument_specs.yml lacks {', '.join(sorted(set(defaults) - set(options)))}")
    for name, option in options.items():
        if "default" in option and option["default"] != defaults.get(name):
            raise Mismatch(f"{name}: the default of meta/argument_specs.yml is not that of defaults/main.yml")
    lines = ["| variable | type | default | what it is |", "|---|---|---|---|", *rows(options, defaults)]
    return "".join(f"{line}\n" for line in lines)


def load(path: Path) -> Options:
    loaded: Options = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return loaded


def rows(options: Options, defaults: Options) -> Iterator[str]:
    """Yield a line for each variable and for each option inside of one; those that two variables share, once."""
    shown: dict[int, str] = {}  # a YAML anchor and its alias load as one object
    for name, option in options.items():
        inner = option.get("options", {})
        like = shown.get(id(inner)) if inner else None
        yield row(name, option, value(defaults.get(name)), f" Options as in `{like}`." if like else "")
        if inner and not like:
            shown[id(inner)] = name
            prefix = f"{name}[]." if option.get("type") == "list" else f"{name}."
            yield from (row(f"{prefix}{sub}", suboption, value(suboption.get("default"))) for sub, suboption in inner.items())


def row(name: str, option: Options, default: str, more: str = "") -> str:
    kind = option.get("type", "str")
    if kind == "list":
        kind = f"list of {option.get('elements', 'str')}"
    said = option["description"]
    sentences = MARKUP.sub(in_code, " ".join(said) if isinstance(said, list) else said) + more
    if option.get("choices"):
        sentences += f" One of {', '.join(value(choice) for choice in option['choices'])}."
    required = ", required" if option.get("required") else ""
    cells = (f"`{name}`", f"{kind}{required}", default, sentences)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def in_code(markup: re.Match[str]) -> str:
    return f"`{markup[1].removeprefix('ignore:')}`"


def value(given: Any) -> str:
    """Return a value as YAML on one line, nothing for none."""
    if given is None:
        return ""
    if isinstance(given, str) and given:
        return f"`{given}`"
    # An end-of-document marker follows a bare scalar.
    dumped = yaml.safe_dump(given, default_flow_style=True, sort_keys=False, width=10**6)
    return f"`{dumped.removesuffix('...' + chr(10)).strip()}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
