"""Run a shell script in a guest by its agent and print what it prints: in_guest.py GUEST SCRIPT"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from base64 import b64decode
from typing import Any


def ask(guest: str, command: str, **arguments: Any) -> Any:
    """Return what the agent answers."""
    text = json.dumps({"execute": command, "arguments": arguments})
    return json.loads(subprocess.run(["virsh", "qemu-agent-command", guest, text], check=True, stdout=subprocess.PIPE, text=True).stdout)["return"]


def main() -> int:
    """Command line."""
    guest, script = sys.argv[1:]
    started = ask(guest, "guest-exec", **{"path": "/bin/sh", "arg": ["-c", script], "capture-output": True})
    while not (done := ask(guest, "guest-exec-status", pid=started["pid"]))["exited"]:
        time.sleep(0.1)
    for stream, part in ((sys.stdout, "out-data"), (sys.stderr, "err-data")):
        stream.write(b64decode(done.get(part, "")).decode())
    return int(done["exitcode"])


if __name__ == "__main__":
    sys.exit(main())
