# Copyright: anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write what each task returned, and the recap, to the file that ANSIBLE_RECORD names, one JSON object a line.

A task: {"task", "host", "check", "outcome": ok|failed|skipped|unreachable, "at": time of day, "seconds", "result": {...}}.
The recap: {"recap": {host: {ok, changed, failures, ...}}}.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: record
type: notification
short_description: Write task results and the recap as JSON lines
description: Writes one JSON object a line to the file that the environment variable E(ANSIBLE_RECORD) names.
requirements:
  - enabled in configuration
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "record"
    CALLBACK_NEEDS_ENABLED = True

    _check = False

    def __init__(self) -> None:
        super().__init__()
        self._started: dict[tuple[str, str], float] = {}

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._check = bool(getattr(play, "check_mode", False)) or bool(context.CLIARGS.get("check"))

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._started[host.get_name(), task._uuid] = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        self._write_task("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ARG002  (Ansible names it)
        self._write_task("failed", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._write_task("skipped", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._write_task("unreachable", result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._write({"recap": {host: stats.summarize(host) for host in sorted(stats.processed)}})

    def _write_task(self, outcome: str, result: Any) -> None:
        # ansible-core 2.19 made the names public and deprecates the others.
        host = result.host if hasattr(result, "host") else result._host
        values = result.result if hasattr(result, "result") else result._result
        task = result.task if hasattr(result, "task") else result._task
        seconds = round(time.monotonic() - self._started.pop((host.get_name(), task._uuid), time.monotonic()), 2)
        public = {key: value for key, value in values.items() if not key.startswith("_ansible")}
        line = {"task": result.task_name, "host": host.get_name(), "check": self._check, "outcome": outcome}
        self._write({**line, "at": time.strftime("%H:%M:%S"), "seconds": seconds, "result": public})

    @staticmethod
    def _write(line: dict[str, Any]) -> None:
        path = os.environ.get("ANSIBLE_RECORD")
        if path:
            with open(path, "a", encoding="utf-8") as record:
                record.write(json.dumps(line, default=str) + "\n")
