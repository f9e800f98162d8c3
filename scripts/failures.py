"""Say what failed in a run of Molecule, and how the consoles of the lab hosts ended: failures.py DIRECTORY.

Of DIRECTORY it reads record.jsonl (callback_plugins/record.py) and *.console (extensions/molecule/default/destroy.yml).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

LAST_FAILURES = 8
LAST_CONSOLE_LINES = 25
MOST_CHARACTERS = 3000


def main(directory: str) -> int:
    record = Path(directory, "record.jsonl")
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()] if record.exists() else []
    failures = [line for line in lines if line.get("outcome") in ("failed", "unreachable")]
    for line in failures[-LAST_FAILURES:]:
        print(f"\n{line['outcome']}: {line['host']}: {line['task']} (after {line['seconds']} s)")
        print(json.dumps(line["result"], indent=1, default=str)[:MOST_CHARACTERS])
    for console in sorted(Path(directory).glob("*.console")):
        print(f"\n{console.stem}: the end of its console")
        print("\n".join(console.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_CONSOLE_LINES:]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
