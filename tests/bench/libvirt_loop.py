"""The limit: define guests from finished XML in a plain loop. Usage: libvirt_loop.py DIR"""

from __future__ import annotations

import sys
from pathlib import Path

import libvirt

documents = [path.read_text(encoding="utf-8") for path in sorted(Path(sys.argv[1]).glob("*.xml"))]
connection = libvirt.open("qemu:///system")
for document in documents:
    connection.defineXML(document)
connection.close()
