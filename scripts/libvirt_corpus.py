"""The XML of libvirt's own test suite, from the distribution's source package of libvirt.

    libvirt_corpus.py [--kind network] [--version 9.0.0] [--codename trixie]
                        prints the directory that holds it, having fetched it if it is not there; the kind is domain if not given,
                        version and codename of the distribution are the machine's

Kept in the cache directory, outside of every checkout. apt works in a directory of its own, with the machine's own servers
and keys: no source list, package list or cache of the machine changes. Python 3.9, standard library, apt, dpkg-dev or tar.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Optional

# Where the suite keeps documents of each kind, by the name of the directory below tests/.
DIRECTORIES = {
    "domain": ("qemuxml2argvdata", "qemuxml2xmloutdata", "qemuxmlconfdata", "genericxml2xmlindata", "genericxml2xmloutdata", "domainschemadata"),
    "network": ("networkxml2xmlin", "networkxml2xmlout", "networkxml2confdata", "networkxml2firewalldata", "networkxml2xmlupdateout"),
    "nwfilter": ("nwfilterxml2xmlin", "nwfilterxml2xmlout", "nwfilterxml2firewalldata"),
}


def cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "anfitrion.kvm" / "libvirt-corpus"


def corpus(kind: str = "domain", version: Optional[str] = None, codename: Optional[str] = None) -> Path:
    """Return the directory with the documents of a kind, DIRECTORY/NAME.xml; fetch the source package of the release if need be."""
    target = cache_directory() / (version or installed_release())
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{target}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            fetch(target, codename)
    return target / kind


def installed_release() -> str:
    return subprocess.check_output(["dpkg-query", "-W", "-f", "${source:Upstream-Version}", "libvirt0"], text=True).strip()


def fetch(target: Path, codename: Optional[str]) -> None:
    work = Path(f"{target}.new")
    shutil.rmtree(work, ignore_errors=True)
    for part in ("lists/partial", "archives/partial", "documents"):
        (work / part).mkdir(parents=True)
    (work / "sources.list").write_text("".join(source_lines(codename)), encoding="utf-8")
    places = [f"Dir::Etc::SourceList={work}/sources.list", "Dir::Etc::SourceParts=/dev/null", f"Dir::State::Lists={work}/lists"]
    options = [word for place in (*places, f"Dir::Cache={work}", "APT::Sandbox::User=root") for word in ("-o", place)]
    subprocess.run(["apt-get", "-q", *options, "update"], check=True, stdout=subprocess.DEVNULL)
    wanted = f"libvirt={package_version(options, target.name)}"
    # Of the package only upstream's archive is wanted; apt checks its hash, which is in the signed index.
    uris = subprocess.check_output(["apt-get", "-q", *options, "source", "--print-uris", "--download-only", wanted], text=True)
    uri, digest = re.findall(r"^'(\S+\.orig\.tar\.\wz2?)' .* (SHA256:\w+)$", uris, re.MULTILINE)[0]
    subprocess.run(["/usr/lib/apt/apt-helper", *options, "download-file", uri, str(work / "archive"), digest], check=True, stdout=subprocess.DEVNULL)
    unpack(work / "archive", work / "documents")
    (work / "documents").rename(target)
    shutil.rmtree(work)


def source_lines(codename: Optional[str]) -> list[str]:
    """Return a deb-src line for each source of packages that the machine has, or would have in another release."""
    command = ["sh", "-c", '. /etc/os-release; echo "$VERSION_CODENAME"']
    own = subprocess.check_output(command, text=True).strip()
    fields = "$(REPO_URI)|$(CODENAME)|$(COMPONENT)|$(SIGNED_BY)"
    targets = subprocess.check_output(["apt-get", "indextargets", "--format", fields, "Created-By: Packages", "Origin: Debian"], text=True)
    lines = set()
    for line in targets.splitlines():
        uri, release, component, _key = line.split("|")
        release = release.replace(own, codename or own)
        lines.add(f"deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {uri} {release} {component}\n")
    return sorted(lines)


def package_version(options: list[str], release: str) -> str:
    """Return the version of the source package that has an upstream release."""
    shown = subprocess.check_output(["apt-cache", *options, "showsrc", "libvirt"], text=True)
    versions = [line.split()[1] for line in shown.splitlines() if line.startswith("Version: ")]
    found = [one for one in versions if one.startswith(f"{release}-")]
    if not found:
        raise SystemExit(f"the machine's package servers have libvirt {', '.join(versions)}, not {release}")
    return found[-1]


def unpack(archive: Path, target: Path) -> None:
    """Keep the documents of the archive, nothing else; the links among them become files."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            kind = next((kind for kind, names in DIRECTORIES.items() if len(parts) == 4 and parts[1] == "tests" and parts[2] in names), None)
            if kind and parts[3].endswith(".xml"):
                content = tar.extractfile(member) if member.isfile() or member.issym() else None
                if content is not None:
                    file = target / kind / parts[2] / parts[3]
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content.read())


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch the XML of libvirt's own test suite; print the directory that holds it.")
    parser.add_argument("--version", help="release of libvirt (default: the installed one)")
    parser.add_argument("--kind", choices=DIRECTORIES, default="domain", help="kind of document (default: %(default)s)")
    parser.add_argument("--codename", help="release of the distribution whose package it is (default: the installed one)")
    given = parser.parse_args()
    print(corpus(given.kind, given.version, given.codename))


if __name__ == "__main__":
    main()
