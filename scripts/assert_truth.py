"""Say whether a run in check mode foretold the run after it: assert_truth.py RECORD; exit 1 if it did not.

RECORD is what callback_plugins/record.py wrote. Of its runs, the last that reached a host without check mode is held
against the last with check mode before it: the same tasks changed on the same hosts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Run = dict[str, Any]  # {"check": bool, "changed": {(host, task)}}


def runs(lines: list[dict[str, Any]]) -> list[Run]:
    """Return the runs of a record: each ends with its recap."""
    found: list[Run] = []
    run: Run = {"check": False, "changed": set()}
    for line in lines:
        if "recap" in line:
            found.append(run)
            run = {"check": False, "changed": set()}
            continue
        run["check"] = run["check"] or line.get("check", False)
        if line["outcome"] == "ok" and line["result"].get("changed"):
            run["changed"].add((line["host"], line["task"]))
    return found


def main(record: str) -> int:
    """Command line."""
    found = runs([json.loads(line) for line in Path(record).read_text(encoding="utf-8").splitlines()])
    checks = [place for place, run in enumerate(found) if run["check"]]
    if not checks or not found[checks[-1] + 1 :]:
        print("the record has no run in check mode with a run after it")
        return 1
    after = [run for run in found[checks[-1] + 1 :] if run["changed"]]
    foretold, done = found[checks[-1]]["changed"], after[0]["changed"] if after else set()
    print(f"{len(foretold)} changed tasks foretold, {len(done)} done")
    for host, task in sorted(foretold ^ done):
        print(f"  {host}: {task}: {'foretold, not done' if (host, task) in foretold else 'done, not foretold'}")
    return 0 if foretold == done and done else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
