# SPDX-License-Identifier: GPL-3.0-or-later
"""The one life cycle of every module: options, observe, plan, apply, verify, result. The only importer of AnsibleModule."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Callable, Protocol

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.respawn import has_respawned, probe_interpreters_for_module, respawn_module

from ansible_collections.anfitrion.kvm.plugins.module_utils import _fields, _options, _xml
from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError
from ansible_collections.anfitrion.kvm.plugins.module_utils._plan import Change, Plan, execute, mismatch, undone

INTERPRETERS = ["/usr/bin/python3", "/usr/libexec/platform-python"]  # what the distribution's libraries are for


class Session(Protocol):
    """What a task holds while it works: a connection to libvirt, or the root of the host's own knobs."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Kind:
    """Everything that makes one module different from another.

    options: rows of what holds for the whole task (uri, apply …), not for one object; info_options: of the info twin.
    key: the fields that name an object; plural: name of the list option, None where a host has just one such object.
    open: (params, check mode) -> Session. plan: (session, wanted entry) -> Plan, without writing anything.
    read: (session, name or None for all) -> list of options as the module takes them; of the info twin.
    facts: (session) -> what else the info twin tells, which is no option.
    at_once: how many objects of a list are worked on at a time; 1 where one may build on another.
    waves: (wanted entries) -> the same in groups, one after the other, within which none builds on another.
    after: the option that names objects of the list to be done before this one; if one of them fails, it is left alone.
    tells_state: the result also says what there is when the task ends, under the table's noun, as the info twin does.
    imports: (Python package, the traceback of its failed import) pairs that the module cannot do without.
    """

    table: _fields.Table
    plural: str | None
    key: tuple[str, ...]
    open: Callable[[Mapping[str, Any], bool], Any]
    plan: Callable[[Any, dict[str, Any]], Plan] = lambda _session, _wanted: Plan("")
    read: Callable[[Any, str | None], list[dict[str, Any]]] = lambda _session, _name: []
    options: tuple[_fields.Row, ...] = ()
    info_options: tuple[_fields.Row, ...] = ()
    imports: tuple[tuple[str, str | None], ...] = ()
    facts: Callable[[Any], dict[str, Any]] | None = None
    at_once: int = 1
    waves: Callable[[list[dict[str, Any]]], list[list[dict[str, Any]]]] = lambda entries: [entries]
    after: str | None = None
    tells_state: bool = False


def module_spec(kind: Kind) -> dict[str, Any]:
    """Return the argument spec of the module: the table's rows, the task's options, and the list form."""
    rows = _options.argument_spec(kind.table.rows)
    options = _options.argument_spec(kind.options)
    if not kind.plural:
        return {**rows, **options}
    for option in rows.values():
        option.pop("required", None)  # the list form states it in its entries
    lists = {kind.plural: {"type": "list", "elements": "dict", **_options.no_secret(kind.plural)}, "defaults": {"type": "dict"}}
    return {**rows, **options, **lists}


class Module(AnsibleModule):  # type: ignore[misc]  # ansible-core has no types
    """Ansible's module, which keeps lists and dictionaries out of the log of the host.

    Ansible takes secrets out of them only where they look in Python's notation as they were given, which one with a line
    break does not; and of the entries of a list it does not know which are secret.
    """

    def log(self, msg: str, log_args: dict[str, Any] | None = None) -> None:
        if log_args is None:
            super().log(msg)
            return
        shown = {name: "(not logged)" if isinstance(self.params.get(name), (dict, list)) else value for name, value in log_args.items()}
        super().log("Invoked with " + " ".join(f"{name}={value}" for name, value in shown.items()), log_args=shown)


def run(kind: Kind) -> None:
    """Carry out a task of the module and end the process with its result."""
    limits: dict[str, Any] = {}
    if kind.plural:
        limits = {
            "mutually_exclusive": [[kind.key[-1], kind.plural]],
            "required_one_of": [[*kind.key, kind.plural]],
            "required_by": {"defaults": [kind.plural]},
        }
    module = _module(kind, limits)
    missing = _missing_import(kind)
    if missing and not module.check_mode:
        module.fail_json(msg=missing_required_lib(missing[0]), exception=missing[1])
    try:
        entries = _entries(module, kind)
        if missing:
            module.warn(f"{missing[0]} for Python is not on this host yet, so check mode takes it to have nothing")
            _finish(module, kind, [_told(module, _unknown(kind, entry)) for entry in entries])
        session = kind.open(module.params, module.check_mode)
    except KvmError as error:
        module.fail_json(msg=str(error))
    try:
        results = [result for wave in kind.waves(entries) for result in _all(module, kind, session, wave)]
        if kind.tells_state:
            results[0][kind.table.noun] = kind.read(session, None)[0]
    except KvmError as error:
        module.fail_json(msg=str(error))
    finally:
        session.close()
    _finish(module, kind, results)


def _module(kind: Kind, limits: dict[str, Any]) -> Any:
    """Return Ansible's module, which hides what is secret and nothing else."""
    spec = module_spec(kind)
    try:
        module = Module(argument_spec=spec, supports_check_mode=True, **limits)
    except TypeError as error:
        # A number where options are: ansible-core (seen up to 2.21) notes it and then looks for options in the number.
        module = Module(argument_spec={name: {"type": "raw", "no_log": True} for name in spec}, supports_check_mode=True)
        given = _options.stated(module.params)
        try:
            _options.check_shape((*kind.table.rows, *kind.options), given)
        except KvmError as fault:
            _fail_unchecked(module, fault.about(_subject(kind, given)))
        _fail_unchecked(module, KvmError(f"{kind.table.noun}: an option is not of the type that the documentation tells: {error}"))
    module.no_log_values.clear()
    module.no_log_values.update(_options.secrets((*kind.table.rows, *kind.options), module.params))
    return module


def _fail_unchecked(module: Any, fault: KvmError) -> None:
    """Fail without the options in the result: of one that nobody knows it is not known whether it is a secret."""
    module.no_log_values.clear()
    module.params.clear()
    module.fail_json(msg=str(fault))


def run_info(kind: Kind) -> None:
    """Return what exists, in the shape that the module takes, and end the process."""
    spec = _options.argument_spec(kind.info_options)
    if kind.plural:
        spec["name"] = {"type": "str"}
    module = Module(argument_spec=spec, supports_check_mode=True)
    _require_imports(module, kind)
    result_name = kind.plural or kind.table.noun
    try:
        session = kind.open(module.params, module.check_mode)
        try:
            found = kind.read(session, module.params.get("name"))
            facts = kind.facts(session) if kind.facts else {}
        finally:
            session.close()
    except KvmError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **{result_name: found if kind.plural else found[0]}, **facts)


def _missing_import(kind: Kind) -> tuple[str, str] | None:
    """Go on under an interpreter that has the libraries; return the library that none has, and why."""
    for library, failure in kind.imports:
        if failure is None:
            continue
        interpreter = None if has_respawned() else probe_interpreters_for_module(INTERPRETERS, library)
        if interpreter:
            respawn_module(interpreter)
        return library, failure
    return None


def _require_imports(module: Any, kind: Kind) -> None:
    """Go on under an interpreter that has the libraries, or fail with the package's name."""
    missing = _missing_import(kind)
    if missing:
        module.fail_json(msg=missing_required_lib(missing[0]), exception=missing[1])


def _entries(module: Any, kind: Kind) -> list[dict[str, Any]]:
    """Return the stated options of every object of the task, in normal form."""
    own = _options.stated({row.name: module.params.get(row.name) for row in kind.table.rows})
    if not kind.plural or module.params.get(kind.plural) is None:
        missing = [row.name for row in kind.table.rows if getattr(row, "required", False) and row.name not in own]
        if missing:
            raise KvmError(f"{kind.table.noun}: {', '.join(missing)} must be given")
        return [_normal(kind, own)]
    if own:
        raise KvmError(f"{', '.join(sorted(own))}: give it in an entry of {kind.plural}, or for all of them in defaults")
    entries = [_merged(module.params["defaults"] or {}, entry) for entry in module.params[kind.plural]]
    mentioned = cache(lambda: ArgumentSpecValidator(_options.argument_spec(kind.table.rows, entries=entries)))
    done: list[dict[str, Any]] = []
    labels: set[str] = set()
    for index, entry in enumerate(entries):
        where = f"{kind.plural}[{index}] {_label(kind, entry)!r}"
        try:
            _options.check_shape(kind.table.rows, entry)
        except KvmError as error:
            _fail_unchecked(module, error.about(where))
        stated = _options.as_given(kind.table.rows, entry)
        if stated is None:
            stated = _checked(module, kind, entry, mentioned(), where)
        module.no_log_values.update(_options.secrets(kind.table.rows, stated))
        done.append(_normal(kind, stated))
        label = _label(kind, done[-1])
        if label in labels:
            raise KvmError(f"{where}: named twice in this task")
        labels.add(label)
    return done


def _checked(module: Any, kind: Kind, entry: dict[str, Any], validator: Any, where: str) -> dict[str, Any]:
    """Return the stated options of an entry as Ansible makes them of what the user gave."""
    result = validator.validate(entry)
    if result.error_messages:  # the whole spec says it better: what else there is
        result = ArgumentSpecValidator(_options.argument_spec(kind.table.rows)).validate(entry)
    if result.error_messages:
        unknown = "unknown option " if result.unsupported_parameters else ""
        _fail_unchecked(module, KvmError(f"{where}: {unknown}{'; '.join(result.error_messages)}"))
    stated: dict[str, Any] = _options.stated(result.validated_parameters)
    return stated


def _normal(kind: Kind, entry: dict[str, Any]) -> dict[str, Any]:
    try:
        return _fields.normal(kind.table.rows, entry)
    except KvmError as error:
        raise error.about(_subject(kind, entry)) from None


def _merged(defaults: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry over the defaults: dicts are merged, anything else replaces."""
    merged = dict(defaults)
    for name, value in entry.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def _label(kind: Kind, entry: Mapping[str, Any]) -> str:
    return "/".join(str(entry[key]) for key in kind.key if entry.get(key) is not None)


def _subject(kind: Kind, entry: Mapping[str, Any]) -> str:
    label = _label(kind, entry)
    return f"{kind.table.noun} {label!r}" if label else kind.table.noun


def _all(module: Any, kind: Kind, session: Any, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the result of every object, those first that others come after."""
    names = [_label(kind, entry) for entry in entries]
    needs = [[names.index(one) for one in entry.get(kind.after or "", []) if one in names] for entry in entries]
    done: dict[int, Future[dict[str, Any]]] = {}

    def work(index: int) -> dict[str, Any]:
        failed = [names[one] for one in needs[index] if done[one].result().get("failed")]
        if not failed:
            return _one(module, kind, session, entries[index])
        msg = f"{_subject(kind, entries[index])}: {kind.after}: {', '.join(failed)} failed, so this is left as it is"
        return {**_named(kind, entries[index]), "failed": True, "changed": False, "msg": msg}

    # libvirt waits for the disk or the guest most of the time; the objects of a list wait together.
    with ThreadPoolExecutor(kind.at_once) as pool:
        for index in _in_order(needs, kind, names):
            done[index] = pool.submit(work, index)  # what it waits for was handed in before: the pool cannot be stuck
    return [done[index].result() for index in range(len(entries))]


def _in_order(needs: list[list[int]], kind: Kind, names: list[str]) -> list[int]:
    """Return the places of a list so that each comes after those that it needs."""
    order: list[int] = []
    done: set[int] = set()
    left = list(range(len(needs)))
    while left:
        ready = [index for index in left if done.issuperset(needs[index])]
        if not ready:
            raise KvmError(f"{kind.after}: {', '.join(names[index] for index in left)} wait for each other")
        order += ready
        done.update(ready)
        left = [index for index in left if index not in done]
    return order


def _named(kind: Kind, entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in kind.key if key in entry}


def _one(module: Any, kind: Kind, session: Any, entry: dict[str, Any]) -> dict[str, Any]:
    """Plan one object, apply and verify unless in check mode; return its result, failed included."""
    plan: Plan | None = None
    steps_done = False
    failure: KvmError | None = None
    waiting = False
    try:
        plan = kind.plan(session, entry)
        if not module.check_mode and plan.changed:
            execute(plan)
            steps_done = True
            again = _again(kind, session, entry, plan)
            failure = KvmError(f"{mismatch(again)}{undone(plan.steps)}") if again.changed else None
            reboot = {name: fact for name, fact in again.facts.items() if name.startswith("reboot_")}
            plan = replace(plan, pending=again.pending, facts={**plan.facts, **reboot})
        waiting = not module.check_mode and not failure
        for wait in plan.waits if waiting else ():
            wait.do()
    except KvmError as error:
        failure = error
    named = _named(kind, entry)
    if failure or plan is None:
        named.update(_told(module, plan) if plan and waiting else {})
        evidence = {"evidence": failure.evidence} if failure and failure.evidence else {}
        return {**named, "failed": True, "changed": steps_done, "msg": f"{_subject(kind, entry)}: {failure}", **evidence}
    return {**named, **_told(module, plan)}


def _again(kind: Kind, session: Any, entry: dict[str, Any], done: Plan) -> Plan:
    """Return the plan after one was carried out; what now cannot even be planned is undone like what was not kept."""
    try:
        return kind.plan(session, entry)
    except KvmError as error:
        raise KvmError(f"{error}{undone(done.steps)}") from error


def _told(module: Any, plan: Plan) -> dict[str, Any]:
    """Return what the result says of a plan, and warn of what it warns of."""
    for warning in plan.warnings:
        module.warn(f"{plan.subject}: {warning}")
    diff = {"diff": plan.diff()} if module._diff and plan.changed else {}
    return {**plan.report(), **diff}


def _unknown(kind: Kind, entry: dict[str, Any]) -> Plan:
    """Return the plan of check mode for a host that lacks our libraries: it has nothing, so everything would be made."""
    if entry.get("state") == "absent":
        return Plan(_subject(kind, entry))
    changes = [Change(option, None, value, "define") for option, value in entry.items() if option not in kind.key]
    return Plan(_subject(kind, entry), tuple(changes) or (Change("state", None, "present", "define"),))


def _finish(module: Any, kind: Kind, results: list[dict[str, Any]]) -> None:
    failed = [result["msg"] for result in results if result.get("failed")]
    changed = any(result["changed"] for result in results)
    diff = [result.pop("diff") for result in results if "diff" in result]
    listed = bool(kind.plural and module.params.get(kind.plural) is not None)
    result: dict[str, Any] = {"results": results} if listed else dict(results[0])
    result["changed"] = changed
    if diff:
        result["diff"] = diff if listed else diff[0]
    if failed:
        result.pop("failed", None)
        result["msg"] = "; ".join(failed)
        module.fail_json(**result)
    module.exit_json(**result)


LXML = ("lxml", _xml.LXML_IMPORT_ERROR)
