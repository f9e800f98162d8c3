"""Say what failed in a run of Molecule: failures.py DIRECTORY [--of-the-lab].

Of DIRECTORY it reads record.jsonl (callback_plugins/record.py), and *.console and machine.txt (scripts/machine-state), which
extensions/molecule/default/destroy.yml kept. What matters most comes last, and is short: of a long log some places show
only the end.

With --of-the-lab it ends with 0, and says why, if the lab failed and not what is tested: QEMU's emulation ended by an
assertion of its own, or a host did not answer in time and does now. A host that was cut off does not answer later either.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

LAST_FAILURES = 3
LAST_CONSOLE_LINES = 15
MOST_CHARACTERS = 500
# systemd of Debian 13 says it at every reload of its units, on a host without vsock.
NOISE = "Failed to query local AF_VSOCK CID"


def main(directory: str, *words: str) -> int:
    record = Path(directory, "record.jsonl")
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()] if record.exists() else []
    if words:
        why = of_the_lab(lines, Path(directory, "machine.txt"))
        print(why)
        return 0 if why else 1
    for console in sorted(Path(directory).glob("*.console")):
        print(f"\n{console.stem}: the end of its console")
        said = [line for line in console.read_text(encoding="utf-8", errors="replace").splitlines() if NOISE not in line]
        print("\n".join(said[-LAST_CONSOLE_LINES:]))
    machine = Path(directory, "machine.txt")
    if machine.exists():
        print(f"\nthe machine and its hosts after that\n{machine.read_text(encoding='utf-8').rstrip()}")
    failures = [line for line in lines if line.get("outcome") in ("failed", "unreachable")]
    for line in failures[-LAST_FAILURES:]:
        print(f"\n{line['outcome']}: {line['host']}: {line['task']} (at {line['at']}, after {line['seconds']} s)")
        print(_shortened(_told(line["result"])))
    return 0


def of_the_lab(lines: list[dict[str, Any]], machine: Path) -> str:
    """Return why the lab and not what is tested is to blame, nothing if that cannot be said."""
    state = machine.read_text(encoding="utf-8") if machine.exists() else ""
    assertion = re.search(r"^qemu-system.*Assertion .*failed", state, re.MULTILINE)
    if assertion:
        return assertion[0]
    bad = [line for line in lines if line.get("outcome") in ("failed", "unreachable")]
    lost = {line["host"] for line in bad if line["outcome"] == "unreachable"}
    back = {host for host in lost if re.search(rf"^{host}: running.* rc=0 ", state, re.MULTILINE)}
    return f"{', '.join(sorted(lost))} did not answer in time and does now" if lost and lost == back and bad[-1]["outcome"] == "unreachable" else ""


def _told(result: dict[str, Any]) -> str:
    failed = [item for item in result.get("results", []) if item.get("failed")]
    shown = failed[-1] if failed else result
    words = [str(shown[key]) for key in ("msg", "fail_msg", "stderr", "module_stderr", "exception") if shown.get(key)]
    return "\n".join(words) or json.dumps(shown, default=str)


# An error tells what happened at its start and, of a chain, at its end.
def _shortened(text: str) -> str:
    half = MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[:half]} [...] {text[-half:]}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
