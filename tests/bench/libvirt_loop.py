"""The limit: define guests from finished XML, or read them, in a plain loop. Usage: libvirt_loop.py define|read DIR"""

from __future__ import annotations

import sys
from pathlib import Path

import libvirt

what, directory = sys.argv[1:]
connection = libvirt.open("qemu:///system")
if what == "define":
    for document in [path.read_text(encoding="utf-8") for path in sorted(Path(directory).glob("*.xml"))]:
        connection.defineXML(document)
else:
    for domain in connection.listAllDomains():
        domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
connection.close()
