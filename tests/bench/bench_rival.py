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
LEAST = {50: 12, 200: 45}  # how many times longer its loop takes


def test_a_loop_of_community_libvirt_takes_many_times_longer(directory: Path, tmp_path: Path) -> None:
    emptied(directory)
    ours = played(directory, tmp_path / "ours", "anfitrion.kvm.kvm_domain", TASK)
    emptied(directory)
    theirs = played(
        directory, tmp_path / "theirs", "community.libvirt.virt", {"command": "define", "xml": "{{ item }}"},
        loop=[document(number) for number in range(LOOPED)], ansible=Path(os.environ["RIVAL"]), collections=tmp_path / "none",
    )  # fmt: skip
    assert is_changed(theirs)
    nothing = played(directory, tmp_path / "nothing", "nothing", {}).seconds
    whole = nothing + (theirs.seconds - nothing) * GUESTS / LOOPED
    print(
        f"\n{GUESTS} guests: ours {ours.seconds:.2f} s, community.libvirt {whole:.1f} s (from {LOOPED} in {theirs.seconds:.1f} s),"
        f" {whole / ours.seconds:.0f} times"
    )
    assert whole / ours.seconds >= LEAST.get(GUESTS, 1)
