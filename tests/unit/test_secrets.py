# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is secret gets neither into the result of a task nor into the log of the host."""

from __future__ import annotations

import json
import syslog
from dataclasses import replace
from typing import Any

import pytest
from ansible.module_utils import basic

from ansible_collections.anfitrion.kvm.plugins.module_utils import _run
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.domain import DOMAIN
from ansible_collections.anfitrion.kvm.plugins.module_utils._libvirt.secret import SECRET
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Plan

pytestmark = pytest.mark.ring(1)

CANARY = "canary-7f3a"
GUESTS = {
    "a password": {"graphics": [{"type": "vnc", "password": CANARY}]},
    "a document for cloud-init": {"cloud_init": {"user_data": f"#cloud-config\npassword: {CANARY}\n"}},
    "a password in XML": {"xml": f"<graphics type='vnc' passwd='{CANARY}'/>"},
    "a password in a string that is a dictionary": {"graphics": [f"type=vnc password={CANARY}"]},
    "a password in a list that should be a dictionary": {"cloud_init": [{"user_data": CANARY}]},
    "a password beside a number that should be a dictionary": {"vcpus": 4, "graphics": [{"type": "vnc", "password": CANARY}]},
}


class Nothing:
    def close(self) -> None:
        """There is nothing to close."""


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs a task of a kind that finds everything as wanted: (kind, options) -> (result, the host's log)."""
    logged: list[str] = []
    monkeypatch.setattr(basic, "has_journal", False)
    monkeypatch.setattr(syslog, "syslog", lambda *words: logged.append(str(words[-1])))

    def run(kind: _run.Kind, options: dict[str, Any]) -> tuple[str, str]:
        asked = {**options, "_ansible_diff": True, "_ansible_verbosity": 4}
        if hasattr(basic, "_PARSED_MODULE_ARGS"):  # an older ansible-core always tells the invocation
            asked["_ansible_inject_invocation"] = True
        arguments = {"ANSIBLE_MODULE_ARGS": asked}
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps(arguments).encode())
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        with pytest.raises(SystemExit):
            _run.run(replace(kind, open=lambda _params, _check: Nothing(), plan=lambda _session, _wanted: Plan("x"), imports=()))
        return capsys.readouterr().out, "\n".join(logged)

    return run


@pytest.mark.parametrize("title", GUESTS)
@pytest.mark.parametrize("form", ["alone", "in a list", "in defaults"])
def test_no_secret_of_a_guest_is_told(ran: Any, title: str, form: str) -> None:
    guest = GUESTS[title]
    forms = {
        "alone": {"name": "db01", **guest},
        "in a list": {"domains": [{"name": "db01", **guest}]},
        "in defaults": {"domains": [{"name": "db01"}], "defaults": guest},
    }
    result, log = ran(DOMAIN, forms[form])
    assert "db01" in result
    assert CANARY not in result
    assert CANARY not in log


@pytest.mark.parametrize("options", [{"name": "key", "value": CANARY}, {"secrets": [{"name": "key", "value": CANARY}]}])
def test_no_value_of_a_secret_is_told(ran: Any, options: dict[str, Any]) -> None:
    result, log = ran(SECRET, options)
    assert CANARY not in result
    assert CANARY not in log


# Of a guest alone ansible-core itself refuses it, and tells all options with -vvv.
@pytest.mark.parametrize("defaults", [{}, {"graphics": [{"type": "vnc", "pasword": CANARY}]}])
def test_what_may_be_a_secret_is_not_told(ran: Any, defaults: dict[str, Any]) -> None:
    guest = {"name": "db01"} if defaults else {"name": "db01", "graphics": [{"type": "vnc", "pasword": CANARY}]}
    result, log = ran(DOMAIN, {"domains": [guest], **({"defaults": defaults} if defaults else {})})
    assert "unknown option graphics.pasword" in result
    assert CANARY not in result
    assert CANARY not in log


def test_what_is_no_secret_is_told(ran: Any) -> None:
    result, log = ran(DOMAIN, {"domains": [{"name": "db01", "title": "first"}]})
    assert json.loads(result)["invocation"]["module_args"]["domains"][0]["title"] == "first"
    assert "Invoked with" in log
