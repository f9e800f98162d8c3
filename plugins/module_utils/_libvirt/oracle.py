# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt makes of a domain document, without side effects: its own QEMU driver, embedded in a child process.

The child has a private root (https://libvirt.org/drvqemu.html#embedded-driver), so that a document which crashes the
parser ends the child, not the daemon, and check mode can be exact.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

from ansible_collections.anfitrion.kvm.plugins.module_utils._errors import KvmError

DEADLINE_S = 120  # the first use on a host probes every QEMU binary, seconds each under emulation
CAPABILITIES = "/var/cache/libvirt/qemu/capabilities"  # copied in: it saves that probing
SHORT = "/run"  # the path of a socket below the root has at most 107 bytes, and Ansible's temporary directory can be long

CHILD = """
import os, resource, sys, threading, libvirt
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # a document that asks for too much ends this process early
libvirt.registerErrorHandler(lambda c, e: None, None)
libvirt.virEventRegisterDefaultImpl()
def loop():
    while True:
        libvirt.virEventRunDefaultImpl()
threading.Thread(target=loop, daemon=True).start()
try:
    connection = libvirt.open(sys.argv[1])
    domain = connection.defineXML(sys.stdin.read())
    sys.stdout.write(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))
    sys.stdout.flush()
except libvirt.libvirtError as error:
    sys.stderr.write(str(error))
    sys.stderr.flush()
    os._exit(3)
os._exit(0)
"""


# The driver drops paths of its own making from a definition, each version by its own rule: these are its own below a root.
OWN_PLACES = (("/var/lib/libvirt/qemu/", "/lib/qemu/"), ("/run/libvirt/qemu/", "/run/qemu/"))


def placed(document: str, root: str) -> str:
    """Return a document with the daemon's own directories as they are below a root."""
    for own, below in OWN_PLACES:
        document = document.replace(own, root + below)
    return document


def taken_back(document: str, root: str) -> str:
    """Return a document from below a root with the directories that the daemon has."""
    for own, below in OWN_PLACES:
        document = document.replace(root + below, own)
    return document


def read_back(uri: str, document: str) -> str:
    """Return the definition that libvirt would print for a domain document that it was given.

    Raises KvmError with libvirt's words when it refuses the document, or when it crashes on it.
    """
    root = tempfile.mkdtemp(prefix="anfitrion-oracle-", dir=SHORT if os.access(SHORT, os.W_OK) else None)
    try:
        if os.path.isdir(CAPABILITIES):
            shutil.copytree(CAPABILITIES, os.path.join(root, "cache/qemu/capabilities"))
        # The driver starts no guest here; without this it wants the user that the distribution's package makes.
        os.makedirs(os.path.join(root, "etc"))
        with open(os.path.join(root, "etc/qemu.conf"), "w", encoding="ascii") as file:
            file.write(f'user = "+{os.geteuid()}"\ngroup = "+{os.getegid()}"\n')
        target = uri.split("?", 1)[0] if uri.startswith("test:") else f"qemu:///embed?root={root}"
        # run_command is AnsibleModule's, which only _run.py knows; and the child must end within a time.
        child = subprocess.run(  # pylint: disable=ansible-bad-function
            [sys.executable, "-c", CHILD, target], input=placed(document, root), capture_output=True, text=True, timeout=DEADLINE_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise KvmError(f"xml: libvirt did not answer within {DEADLINE_S} s what it makes of it") from None
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if child.returncode == 3:
        raise KvmError(f"xml: libvirt refuses it: {(child.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    if child.returncode:
        raise KvmError(f"xml: libvirt's parser crashed on it (exit {child.returncode}); {child.stderr.strip()[-200:]}")
    return taken_back(child.stdout, root)
