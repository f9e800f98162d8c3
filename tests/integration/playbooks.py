"""Run playbooks in children of one process that has loaded Ansible: to load it takes longer than most playbooks of a test run.

    playbooks.py < requests > answers

One line of JSON a request, {"arguments": […], "directory": path, "environment": {…}, "output": file}; one line an answer: the exit status.
Each child is the command `ansible-playbook` from its first line on. Only the configuration is read before that, with the environment of
this process; that of a request is for what looks later, as callbacks and modules do.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from ansible.cli import playbook

# The command loads these as it goes; what is missing here, each child loads for itself.
for name in (
    "ansible.executor.module_common",
    "ansible.executor.playbook_executor",
    "ansible.plugins.action.normal",
    "ansible.plugins.callback.default",
    "ansible.plugins.connection.local",
    "ansible.plugins.strategy.linear",
):
    importlib.import_module(name)


def child(request: dict[str, Any]) -> int:
    os.chdir(request["directory"])
    os.environ.update(request["environment"])
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        playbook.main(["ansible-playbook", *request["arguments"]])
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            status = 250
            try:
                status = child(json.loads(line))
            finally:
                # What was to happen at the end of this process, such as removing Ansible's own directory, is the parent's.
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)


if __name__ == "__main__":
    main()
