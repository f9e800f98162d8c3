"""Run kvm_hostdev with one of some options after the other, again and again: rounds.py DIRECTORY ROUNDS JSON…

DIRECTORY has the collection and Ansible's module_utils. Each run is a process of its own, as with Ansible, but is spared the loading of
the module, which takes an emulated host longer than the work. It ends with an error at the first run that fails or changes nothing.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

PLUGINS = "ansible_collections.anfitrion.kvm.plugins"
DIRECTORY, ROUNDS, *ASKED = sys.argv[1:]
sys.path.insert(0, DIRECTORY)


def once(basic, module, options):
    """Return the result of one run."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": options}).encode()
        basic._ANSIBLE_PROFILE = "legacy"
        try:
            module.main()
        except SystemExit:
            sys.stdout.flush()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    return json.loads(said)


def main():
    with open(os.path.join(DIRECTORY, "ansible", "__init__.py"), "w", encoding="ascii"):
        pass  # a package without content, as Ansible sends it along with a module
    basic = importlib.import_module("ansible.module_utils.basic")
    module = importlib.import_module(f"{PLUGINS}.modules.kvm_hostdev")
    for loaded in ("_libvirt.devices", "_run"):  # what its main() would import
        importlib.import_module(f"{PLUGINS}.module_utils.{loaded}")
    done = 0
    for _round in range(int(ROUNDS)):
        for options in map(json.loads, ASKED):
            result = once(basic, module, options)
            if result.get("failed") or not result.get("changed"):
                print(f"run {done + 1}: {json.dumps(result)}")
                return 1
            done += 1
    print(f"{done} runs, each of which changed what it was to")
    return 0


if __name__ == "__main__":
    sys.exit(main())
