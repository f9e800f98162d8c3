"""Write how long each task took to the file that ANSIBLE_DURATIONS names, one JSON object a line."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: durations
type: notification
short_description: Write how long each task took as JSON lines
description: Writes one JSON object a line to the file that the environment variable E(ANSIBLE_DURATIONS) names.
requirements:
  - enabled in configuration
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "durations"
    CALLBACK_NEEDS_ENABLED = True

    started = 0.0

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002  (Ansible names it)
        self.started = time.perf_counter()

    def v2_runner_on_ok(self, result: Any) -> None:
        values = result.result if hasattr(result, "result") else result._result
        line = {"task": result.task_name, "seconds": time.perf_counter() - self.started, "changed": bool(values.get("changed"))}
        with open(os.environ["ANSIBLE_DURATIONS"], "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
