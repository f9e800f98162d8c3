"""As many guests by one task of ours and by a loop of community.libvirt. Run by scripts/bench --rival.

RIVAL of the environment is the directory of the ansible-playbook that brings community.libvirt. Its loop runs over 25 guests, and its
time is taken as so much more for as many as ours.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench_domains import GUESTS, TASK, document, emptied
from playing import is_changed, played

LOOPED = 25
ROUNDS = 3
LEAST = {50: 12, 200: 45, 1000: 60}  # how many times longer its loop takes


def one_round(directory: Path, work: Path) -> tuple[float, float, float]:
    """Return how many times longer its loop takes, and the seconds of ours and of its loop."""
    emptied(directory)
    ours = played(directory, work / "ours", "anfitrion.kvm.kvm_domain", TASK).seconds
    emptied(directory)
    looped = played(
        directory, work / "theirs", "community.libvirt.virt", {"command": "define", "xml": "{{ item }}"},
        loop=[document(number) for number in range(LOOPED)], ansible=Path(os.environ["RIVAL"]), collections=work / "none",
    )  # fmt: skip
    assert is_changed(looped)
    nothing = played(directory, work / "nothing", "nothing", {}).seconds
    theirs = nothing + (looped.seconds - nothing) * GUESTS / LOOPED
    return theirs / ours, ours, theirs


def test_a_loop_of_community_libvirt_takes_many_times_longer(directory: Path, tmp_path: Path) -> None:
    times, ours, theirs = sorted(one_round(directory, tmp_path / str(number)) for number in range(ROUNDS))[ROUNDS // 2]
    print(
        f"\n{GUESTS} guests, median of {ROUNDS}: ours {ours:.2f} s, community.libvirt {theirs:.1f} s (taken from {LOOPED}), {times:.0f} times"
    )
    assert times >= LEAST.get(GUESTS, 1)
