"""kvm_domain with random options: what it takes it keeps, what it does not take leaves no trace, and libvirtd lives."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import ansible
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from random_guests import specs

ROOT = Path(__file__).resolve().parents[2]
GUESTS = int(os.environ.get("ANFITRION_GUESTS", "1750"))  # of which at least a thousand go the whole way
KEPT = 0.575  # of them at least; the rest are refused, most by libvirt
DROPPED = 0.1  # of them at most are refused since libvirt took an option and did not keep it: it has a meaning only beside another

LISTED = 60  # in one task
# The same guests in every run: a failure of one is a failure of the next, and Hypothesis makes it small.
ALIKE = settings(deadline=None, database=None, phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck))

Verdict = Callable[[dict[str, Any]], dict[str, str]]


@pytest.fixture
def verdict(mortal_libvirtd: Any, tmp_path: Path) -> Iterator[Verdict]:
    """verdict(spec): what became of a guest with these options, from one process for all of them."""
    # Of the environment only ansible itself: its libraries are for another Python than the distribution's.
    (tmp_path / "ansible").symlink_to(Path(ansible.__file__).parent)
    path = f"PYTHONPATH={ROOT / '.ansible' / 'collections'}:{tmp_path}:{ROOT / 'scripts'}"
    script = str(Path(__file__).with_name("random_guest_checks.py"))
    command = mortal_libvirtd.command("env", path, "PYTHONDONTWRITEBYTECODE=1", "/usr/bin/python3", script)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:

        def verdict(spec: dict[str, Any]) -> dict[str, str]:
            assert child.stdin
            assert child.stdout
            print(json.dumps(spec), file=child.stdin, flush=True)
            answer = child.stdout.readline()
            assert answer, f"with this guest libvirtd or what asks it ended: {json.dumps(spec)}"
            return dict(json.loads(answer))

        yield verdict
        child.stdin.close()  # type: ignore[union-attr]


@pytest.mark.row("S11")
@pytest.mark.row("S13")
def test_random_options_are_kept_told_and_changed_or_refused_without_a_trace(verdict: Verdict, mortal_libvirtd: Any) -> None:
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    daemon = mortal_libvirtd.now

    @seed(11)
    @settings(ALIKE, max_examples=GUESTS)
    @given(specs())
    def tried(spec: dict[str, Any]) -> None:
        answer = verdict(spec)
        outcomes[answer["outcome"]] += 1
        reasons[answer["why"][:200]] += 1
        assert answer["outcome"] != "broken", answer["why"]

    tried()
    print(dict(outcomes), *reasons.most_common(), sep="\n")
    assert outcomes["kept"] >= KEPT * GUESTS
    assert sum(count for why, count in reasons.items() if "the host did not keep" in why) <= DROPPED * GUESTS
    assert mortal_libvirtd.now == daemon, "libvirtd died of one of them"


@pytest.mark.row("S11")
def test_a_list_of_random_guests_is_made_as_check_mode_said_and_unchanged_the_second_time(play: Any, libvirtd: Any) -> None:
    guests: list[dict[str, Any]] = []
    seed(12)(settings(ALIKE, max_examples=LISTED)(given(specs())(lambda spec: guests.append(spec["first"]))))()
    entries = [{"name": f"random{number}", **options} for number, options in enumerate(guests)]
    task = {"anfitrion.kvm.kvm_domain": {"domains": entries}, "ignore_errors": True}
    checked, made = (task.result["results"] for task in play([{**task, "check_mode": True}, task]).tasks)
    taken = [number for number, result in enumerate(made) if not result.get("failed")]
    assert len(taken) >= KEPT * len(entries)
    assert [checked[number]["changes"] for number in taken] == [made[number]["changes"] for number in taken]
    again, absent = play([
        {"anfitrion.kvm.kvm_domain": {"domains": [entries[number] for number in taken]}},
        {"anfitrion.kvm.kvm_domain": {"domains": [{"name": entries[number]["name"], "state": "absent"} for number in taken]}},
    ]).succeeded().tasks  # fmt: skip
    assert not again.changed, [result for result in again.result["results"] if result["changed"]]
    assert all(result["changed"] for result in absent.result["results"])
    assert "random" not in libvirtd.run("virsh", "list", "--all", "--name").stdout
