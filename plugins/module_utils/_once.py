# SPDX-License-Identifier: GPL-3.0-or-later
"""Our files are compiled once on the host, not twice, where they are imported within compiling().

Ansible sends a module as an archive, and zipimport compiles each file in it two times: when it is found, to tell its name
(zipimporter.get_filename), and when it is run. Half of the time that a module takes to load is lost by that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pkgutil import get_importer
from types import CodeType
from typing import Any, Optional
from zipimport import zipimporter

PACKAGE = __name__.rpartition(".")[0] + "."


class Loader(InspectLoader):
    """Runs one source file under the name that zipimport would give it, which is what a traceback shows."""

    def __init__(self, source: str, name: str, package: bool) -> None:
        self.source, self.name, self.package = source, name, package

    def is_package(self, _fullname: str) -> bool:
        return self.package

    def get_source(self, _fullname: str) -> Optional[str]:
        return self.source

    def get_code(self, _fullname: str) -> CodeType:
        return self.source_to_code(self.source, self.name)


class Finder(MetaPathFinder):
    """Finds our files where zipimport would; what does not lie in an archive as source is left to others."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, _target: Any = None) -> ModuleSpec | None:
        for entry in (path or ()) if fullname.startswith(PACKAGE) else ():
            archive = get_importer(entry)
            if isinstance(archive, zipimporter) and (source := _source(archive, fullname)) is not None:
                place = f"{entry}/{fullname.rpartition('.')[2]}"
                package = archive.is_package(fullname)
                name = f"{place}/__init__.py" if package else f"{place}.py"
                spec = ModuleSpec(fullname, Loader(source, name, package), origin=name, is_package=package)
                spec.has_location = True
                if package:
                    spec.submodule_search_locations = [place]
                return spec
        return None


def _source(archive: zipimporter, fullname: str) -> str | None:
    try:
        return archive.get_source(fullname)
    except ImportError:  # it is not in there
        return None


@contextmanager
def compiling() -> Iterator[None]:
    """Have what is imported meanwhile compiled once."""
    finder = Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
