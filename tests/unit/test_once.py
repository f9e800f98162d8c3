# Copyright: the anfitrion.kvm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Our files in an archive, as Ansible sends them: what importing them costs and what they look like then."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.ring(2)

PLUGINS = Path(__file__).parents[2] / "plugins"
PACKAGE = "ansible_collections.anfitrion.kvm.plugins.module_utils"
ONCE = f"from {PACKAGE} import _once; within = _once.compiling(); within.__enter__()"
BROKEN = "def fail():\n    raise ValueError('here')\n"

# Prints what was compiled, and whatever the statements that follow put into told.
HOST = """
import json, sys
sys.dont_write_bytecode = True
archive = sys.argv[1]
compiled, told = [], {{}}
sys.addaudithook(lambda event, given: compiled.append(str(given[1])) if event == "compile" and str(given[1]).startswith(archive) else None)
sys.path.insert(0, archive)
{statements}
print(json.dumps({{"compiled": [name[len(archive) + 1:] for name in compiled], "told": told}}))
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("archive") / "payload.zip"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((PLUGINS / "module_utils").rglob("*.py")):
            archive.write(path, f"ansible_collections/anfitrion/kvm/plugins/{path.relative_to(PLUGINS)}")
        archive.writestr(f"{PACKAGE.replace('.', '/')}/_tables/broken.py", BROKEN)
        folders = {str(parent) for name in archive.namelist() for parent in Path(name).parents} - {"."}
        for folder in sorted(folders):
            archive.writestr(f"{folder}/__init__.py", "")
    return made


def run(archive: Path, *statements: str) -> tuple[Counter[str], dict[str, str]]:
    """Run statements where our files come from the archive; return how often each was compiled, and what they told."""
    program = HOST.format(statements="\n".join(statements))
    done = subprocess.run([sys.executable, "-c", program, str(archive)], check=True, capture_output=True, text=True)
    answer = json.loads(done.stdout)
    return Counter(answer["compiled"]), answer["told"]


def test_each_file_is_compiled_once(archive: Path) -> None:
    compiled, _told = run(archive, ONCE, f"from {PACKAGE}._tables import domain")
    ours = {name: count for name, count in compiled.items() if "/module_utils/_tables/" in name}
    assert len(ours) > 10
    assert set(ours.values()) == {1}


def test_a_file_is_what_it_is_without(archive: Path) -> None:
    told = (
        "told.update(file=domain.__file__, package=domain.__package__, rows=len(domain.TABLE.rows), path=list(_tables.__path__),"
        " source=inspect.getsource(domain)[:40])"
    )
    imports = (f"from {PACKAGE} import _tables", f"from {PACKAGE}._tables import domain", "import inspect", told)
    assert run(archive, ONCE, *imports)[1] == run(archive, *imports)[1]


def test_a_traceback_shows_file_and_line(archive: Path) -> None:
    _compiled, told = run(
        archive, ONCE, f"from {PACKAGE}._tables import broken", "import traceback",
        "try: broken.fail()", "except ValueError: told['trace'] = traceback.format_exc()",
    )  # fmt: skip
    assert f'{archive}/{PACKAGE.replace(".", "/")}/_tables/broken.py", line 2, in fail' in told["trace"]
    assert "raise ValueError('here')" in told["trace"]


def test_what_is_not_there_fails_as_without(archive: Path) -> None:
    statement = ("try:", f"    from {PACKAGE}._tables import nothing", "except ImportError as error: told['error'] = str(error)")
    assert run(archive, ONCE, *statement)[1] == run(archive, *statement)[1]


def test_the_way_that_python_imports_is_as_before_after_it(archive: Path) -> None:
    statements = (f"from {PACKAGE} import _once", "before = list(sys.meta_path)", "with _once.compiling():", f"    from {PACKAGE} import _errors",
                  "told['same'] = before == sys.meta_path")  # fmt: skip
    assert run(archive, *statements)[1] == {"same": True}


def test_every_module_begins_with_it() -> None:
    for path in sorted((PLUGINS / "modules").glob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if line.startswith("from ansible")] == [f"from {PACKAGE} import _once"], path.name
        assert lines[lines.index("def main() -> None:") + 1] == "    with _once.compiling():", path.name
