# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception that reaches the user."""

from __future__ import annotations

from typing import Any


class KvmError(Exception):
    """A fault told as the user needs it: object, option, fact and way out, in lower case and without a full stop.

    evidence: what was seen of the object, for the result.
    """

    def __init__(self, message: str, evidence: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.evidence = evidence

    def about(self, subject: str) -> KvmError:
        """Return the same fault with C(subject) named in front."""
        return KvmError(f"{subject}: {self}", self.evidence)
