"""kvm_secret on a real libvirt."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

VALUE = "correct horse battery staple"


def secret(**options: Any) -> dict[str, Any]:
    return {"name": "Secret", "anfitrion.kvm.kvm_secret": options}


@pytest.mark.row("P08")
@pytest.mark.parametrize("private", [True, False])
def test_a_value_that_differs_is_seen_and_never_shown(play: Any, libvirtd: Any, fresh_name: str, private: bool) -> None:
    options = {"type": "volume", "name": f"/{fresh_name}", "private": private, "description": "of a disk", "value": VALUE}
    task, other = secret(**options), secret(**{**options, "value": "another long value"})
    run = play([{**task, "check_mode": True}, task, task, {**other, "check_mode": True}, other, other]).succeeded()
    assert [one.changed for one in run.tasks] == [True, True, False] * 2
    assert run.tasks[0].diff == run.tasks[1].diff
    assert [one["option"] for one in run.tasks[4].result["changes"]] == ["value"]
    told = {"name": "Tell", "anfitrion.kvm.kvm_secret_info": {}, "register": "told"}
    words = secret(type="volume", name=f"/{fresh_name}", description="of another disk")
    run = play([told, secret(secrets="{{ told.secrets }}"), words, words, other, secret(type="volume", name=f"/{fresh_name}", state="absent")])
    run.succeeded()
    assert [one.changed for one in run.tasks] == [False, False, True, False, True, True]
    assert [one["option"] for one in run.tasks[4].result["changes"]] == ["description"], "the digest went with the description"
    for text in (VALUE, "another long value"):
        assert text not in run.output
        places = [str(libvirtd.directory / part) for part in ("log", "etc")]
        kept = subprocess.run(["grep", "-rl", text, *places], capture_output=True, text=True, check=False)
        assert kept.stdout == "", kept.stdout


@pytest.mark.row("P13")
def test_the_key_of_the_digests_is_for_root_only_and_check_mode_makes_none(play: Any, libvirtd: Any, fresh_name: str) -> None:
    key = libvirtd.directory / "etc" / "anfitrion-digest.key"
    key.unlink(missing_ok=True)
    task = secret(type="ceph", name=fresh_name, private=True, value_base64="AAECAwQ=")
    play({**task, "check_mode": True}).succeeded()
    assert not key.exists()
    run = play([task, task]).succeeded()
    assert [one.changed for one in run.tasks] == [True, False]
    assert (key.stat().st_mode & 0o777, key.stat().st_size) == (0o600, 32)
    assert "[anfitrion " in libvirtd.run("virsh", "secret-dumpxml", uuid_of(libvirtd, fresh_name)).stdout
    play(secret(type="ceph", name=fresh_name, state="absent")).succeeded()


def uuid_of(libvirtd: Any, name: str) -> str:
    return next(line.split()[0] for line in libvirtd.run("virsh", "secret-list").stdout.splitlines() if line.endswith(name))


@pytest.mark.row("P08")
def test_what_cannot_be_changed_is_refused_and_nothing_is_touched(play: Any, libvirtd: Any, fresh_name: str) -> None:
    play(secret(type="tls", name=fresh_name, private=False, value=VALUE)).succeeded()
    before = {path: path.read_bytes() for path in sorted((Path(libvirtd.directory) / "etc" / "secrets").iterdir())}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"private": True}, "private: cannot be changed from False to True"),
        ({"uuid": "2a3b4c5d-1111-4222-8333-444455556666"}, "uuid: cannot be changed"),
        ({"value": VALUE, "value_base64": "AA=="}, "value_base64: excludes value"),
        ({"value_base64": "not base64!"}, "value_base64: is not base64"),
    ]
    run = play([{**secret(type="tls", name=fresh_name, **options), "ignore_errors": True} for options, _text in cases])
    assert [(text, one.message) for (_options, text), one in zip(cases, run.tasks) if text not in one.message] == []
    assert {path: path.read_bytes() for path in before} == before
    play(secret(type="tls", name=fresh_name, state="absent")).succeeded()
