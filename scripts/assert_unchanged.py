"""Say whether a recorded run (callback_plugins/record.py) changed nothing on any host: assert_unchanged.py RECORD; exit 1 if it did."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(record: str) -> int:
    lines = [json.loads(line) for line in Path(record).read_text(encoding="utf-8").splitlines()]
    recaps = [line["recap"] for line in lines if "recap" in line]
    if not recaps or not recaps[-1]:
        print("the run reached no host")
        return 1
    changed = {(line["host"], line["task"]) for line in lines if line.get("outcome") == "ok" and line["result"].get("changed")}
    for host, counts in recaps[-1].items():
        print(f"{host}: changed={counts['changed']} failed={counts['failures']} unreachable={counts['unreachable']}")
        for _host, task in sorted(pair for pair in changed if pair[0] == host):
            print(f"  changed: {task}")
    clean = all(counts["changed"] == counts["failures"] == counts["unreachable"] == 0 for counts in recaps[-1].values())
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
