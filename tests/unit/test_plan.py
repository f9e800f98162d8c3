# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a plan is carried out, undone and told."""

from __future__ import annotations

import pytest

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, Step, execute, mismatch

pytestmark = pytest.mark.ring(1)


class Journal(list[str]):
    """What steps did, in order; makes the steps that write it."""

    def step(self, name: str, undo: bool = True) -> Step:
        return Step(name, lambda: self.append(f"do {name}"), (lambda: self.append(f"undo {name}")) if undo else None)

    def failing(self, sentence: str = "broken") -> Step:
        return Step("fail", lambda: self.fail(sentence))

    def stubborn(self, name: str) -> Step:
        return Step(name, lambda: self.append(f"do {name}"), lambda: self.fail("cannot go back"))

    @staticmethod
    def fail(sentence: str) -> None:
        raise KvmError(sentence)


@pytest.fixture
def journal() -> Journal:
    return Journal()


def test_steps_are_done_in_order(journal: Journal) -> None:
    execute(Plan("x", steps=(journal.step("a"), journal.step("b"))))
    assert journal == ["do a", "do b"]


def test_a_failing_step_undoes_those_before_it_in_reverse(journal: Journal) -> None:
    with pytest.raises(KvmError, match=r"^broken; what was done before it is undone$"):
        execute(Plan("x", steps=(journal.step("a"), journal.step("b"), journal.failing(), journal.step("c"))))
    assert journal == ["do a", "do b", "undo b", "undo a"]


def test_a_first_step_that_fails_has_nothing_to_undo(journal: Journal) -> None:
    with pytest.raises(KvmError, match=r"^broken$"):
        execute(Plan("x", steps=(journal.failing(),)))


def test_what_cannot_be_undone_is_named_and_the_rest_is_undone(journal: Journal) -> None:
    steps = (journal.step("a"), journal.step("b", undo=False), journal.stubborn("c"), journal.failing())
    with pytest.raises(KvmError, match=r"^broken; not undone: c \(cannot go back\); b$"):
        execute(Plan("x", steps=steps))
    assert journal == ["do a", "do b", "do c", "undo a"]


def test_an_error_of_ours_in_the_code_is_not_swallowed(journal: Journal) -> None:
    with pytest.raises(ZeroDivisionError):
        execute(Plan("x", steps=(journal.step("a"), Step("divide", lambda: print(1 // 0)))))


def test_a_plan_without_changes_and_steps_is_unchanged() -> None:
    assert not Plan("x", pending=("os.machine",)).changed
    assert Plan("x", changes=(Change("a", 1, 2, "define"),)).changed


def test_the_diff_holds_the_changed_options_by_dotted_name() -> None:
    plan = Plan("domain x", (Change("a.b", None, "1GiB", "define"), Change("disks[vda]", {"b": 2, "a": 1}, None, "remove")))
    assert plan.diff() == {
        "before_header": "domain x",
        "after_header": "domain x",
        "before": 'disks[vda]: {"a": 1, "b": 2}\n',
        "after": "a.b: 1GiB\n",
    }


def test_the_report_names_every_change_with_its_way_and_every_step(journal: Journal) -> None:
    plan = Plan("x", (Change("vcpus.count", 1, 2, "live"),), (journal.step("set it"),), ("os.machine",), facts={"extra": 1})
    assert plan.report() == {
        "changed": True,
        "changes": [{"option": "vcpus.count", "before": 1, "after": 2, "how": "live"}],
        "steps": ["set it"],
        "pending_restart": ["os.machine"],
        "extra": 1,
    }


def test_a_plan_that_is_not_empty_after_it_was_carried_out_says_what_was_not_kept() -> None:
    plan = Plan("x", (Change("cputune.shares", 1024, 2048, "define"),))
    assert mismatch(plan) == "the host did not keep what it was given: cputune.shares: asked 2048, has 1024"


def test_an_error_can_be_given_a_subject() -> None:
    assert str(KvmError("pool 'x' does not exist").about("disks[vda]").about("domain 'a'")) == "domain 'a': disks[vda]: pool 'x' does not exist"
