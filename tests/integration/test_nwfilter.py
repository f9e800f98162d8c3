"""kvm_nwfilter on a real libvirt, and on every filter of libvirt's own test suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

RULE = '<rule action="drop" direction="out" priority="400"><tcp dstportstart="{port}"/></rule>'


def nwfilter(**options: Any) -> dict[str, Any]:
    return {"name": "Filter", "anfitrion.kvm.kvm_nwfilter": options}


def document(name: str, port: str, more: str = "") -> str:
    return f'<filter name="{name}">{more}{RULE.format(port=port)}</filter>'


@pytest.mark.row("P08")
def test_a_filter_is_made_changed_and_removed(cycle: Any, libvirtd: Any, fresh_name: str) -> None:
    seen = cycle("kvm_nwfilter", {"name": fresh_name, "xml": document(fresh_name, "25")}, {"xml": document(fresh_name, "587")})
    assert seen.change.apply.result["changes"][0]["how"] == "live"
    assert fresh_name not in libvirtd.run("virsh", "nwfilter-list").stdout


@pytest.mark.row("P08")
def test_the_same_said_differently_is_no_change_and_the_order_of_rules_is_one(play: Any, fresh_name: str) -> None:
    first, second = RULE.format(port="25"), RULE.format(port="587")
    one = f'<filter name="{fresh_name}">{first}{second}</filter>'
    same = f'<filter name="{fresh_name}" chain="root">{first.replace("25", "0x19")}{second}</filter>'
    other = f'<filter name="{fresh_name}">{second}{first}</filter>'
    tasks = [nwfilter(name=fresh_name, xml=xml) for xml in (one, same, other)]
    told = {"name": "Tell", "anfitrion.kvm.kvm_nwfilter_info": {"name": fresh_name}, "register": "told"}
    run = play([*tasks, told, nwfilter(nwfilters="{{ told.nwfilters }}"), nwfilter(name=fresh_name, state="absent")]).succeeded()
    assert [task.changed for task in run.tasks] == [True, False, True, False, False, True]


@pytest.mark.row("P08")
def test_that_a_rule_is_to_match_needs_no_word(play: Any, fresh_name: str) -> None:
    rule = "<rule action='drop' direction='out' priority='400'><arp {match} arpsrcipaddr='10.0.0.1'/></rule>"
    texts = [f"<filter name='{fresh_name}'>{rule.format(match=match)}</filter>" for match in ("match='yes'", "", "match='no'")]
    run = play([*(nwfilter(name=fresh_name, xml=xml) for xml in texts), nwfilter(name=fresh_name, state="absent")]).succeeded()
    assert [task.changed for task in run.tasks] == [True, False, True, True]


def test_what_cannot_be_is_refused_and_changes_nothing(play: Any, libvirtd: Any, fresh_name: str) -> None:
    before = libvirtd.state()
    cases = {
        "it names 'other'": {"xml": document("other", "25")},
        "filterref 'nope' does not exist on this host": {"xml": document(fresh_name, "25", '<filterref filter="nope"/>')},
        "xml: must be given": {},
        "libvirt refused the definition": {"xml": f'<filter name="{fresh_name}"><rule action="nonsense" direction="out"/></filter>'},
    }
    run = play([{**nwfilter(name=fresh_name, **options), "ignore_errors": True} for options in cases.values()])
    assert {text: task.message for text, task in zip(cases, run.tasks) if text not in task.message} == {}
    assert libvirtd.state() == before


@pytest.mark.row("P08")
def test_every_filter_of_libvirts_own_tests_is_unchanged_at_the_second_run(play: Any, libvirtd: Any) -> None:
    directory = Path(libvirtd.corpus("nwfilter"))
    invalid: list[str] = []  # by the schema; libvirt takes some of them, and drops what it does not know
    entries = [{"name": "clean-traffic", "xml": '<filter name="clean-traffic" chain="root"/>'}]  # some refer to it
    for file in sorted(directory.rglob("*.xml")):
        name = f"corpus-{len(entries)}"
        invalid += [name] if file.stem.endswith("-invalid") else []
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if "<uuid>" not in line]
        text = "\n".join(lines)
        start = text.index("<filter")
        head, rest = text[start:].split(">", 1)
        chain = " ".join(word for word in head.split()[1:] if not word.startswith("name="))
        entries.append({"name": name, "xml": f'<filter name="{name}" {chain}>{rest}'})
    first = play(nwfilter(nwfilters=entries)).only
    taken = [entry for entry, result in zip(entries, first.result["results"]) if not result.get("failed")]
    refused = {entry["name"]: result["msg"] for entry, result in zip(entries, first.result["results"]) if result.get("failed")}
    print(len(taken), "taken;", refused)
    dropped = [name for name, text in refused.items() if "the host did not keep what it was given" in text]
    assert set(dropped) <= set(invalid), refused
    others = [text for name, text in refused.items() if name not in dropped]
    assert not [text for text in others if "libvirt refused" not in text and "does not exist on this host" not in text]
    assert len(taken) >= 98
    again = play(nwfilter(nwfilters=taken))
    assert not again.only.changed, [result for result in again.only.result["results"] if result["changed"]]
    assert play(nwfilter(nwfilters=[{"name": entry["name"], "state": "absent"} for entry in reversed(taken)])).succeeded().only.changed
