# shellcheck shell=bash
# Sourced by the scripts beside it: the checkout as working directory, one setting of every tool, three words.
#
# HOME may be anything or nothing: what tools keep between runs goes below .ansible or the cache directory.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root" || exit

# In CI there is no terminal and nobody to answer a question.
exec < /dev/null
export HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$HOME/.cache}
export ANSIBLE_CONFIG=$root/ansible.cfg
export ANSIBLE_COLLECTIONS_PATH=$root/.ansible/collections
export LC_ALL=C.UTF-8

say() { printf '%s: %s\n' "$(basename "$0")" "$*"; }

fail() { say "$*" >&2; exit 1; }

# Put one environment first, and leave out what could answer in its place (pyenv's shims do, and exit 127).
use_venv() {
    [ -x "$root/.venv/$1/bin/python" ] || fail "there is no .venv/$1; run scripts/setup"
    export VIRTUAL_ENV=$root/.venv/$1
    export PATH=$VIRTUAL_ENV/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
}

# Run a named command, remember how long it took and how it ended.
phase_lines=()
phase() {
    local name=$1 started=$SECONDS status=0
    shift
    printf '\n== %s ==\n' "$name"
    "$@" || status=$?
    add_phase "$name" $((SECONDS - started)) "$status"
    return "$status"
}

add_phase() {
    local word=passed
    [ "$3" -eq 0 ] || word=FAILED
    phase_lines+=("$(printf '%-28s %5d s  %s' "$1" "$2" "$word")")
}

print_phases() {
    printf '\n'
    printf '%s\n' "${phase_lines[@]}" "$(printf '%-28s %5d s' total "$SECONDS")"
}

# The lab's own libvirtd, with the network of the machine: QEMU forwards ports of loopback, nothing else is touched.
start_lab_libvirtd() {
    "$root/scripts/private-libvirtd" start "$root/.ansible/lab/libvirt" > /dev/null
}

# Run a command where qemu:///system is the libvirtd of the lab.
in_lab() {
    "$root/scripts/private-libvirtd" exec "$root/.ansible/lab/libvirt" -- "$@"
}

# pytest on a directory, unless the arguments name files of their own.
run_pytest() {
    local directory=$1 argument
    shift
    for argument; do
        [ ! -e "${argument%%::*}" ] || directory=
    done
    exec python -m pytest -q ${directory:+"$directory"} "$@"
}
