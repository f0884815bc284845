"""A program in the sandbox that the systemd unit describes, as far as that can be had without systemd.

`python -m tests.servers.sandbox [--without CALL] STATE PROGRAM ...` becomes PROGRAM, which may write below STATE only.
The unit's filters of system calls, address families and executable memory are loaded as systemd loads them, but what
systemd answers by an error ends the program here (SIGSYS), so that nothing passes unseen. For root it is an account
without rights besides, with a file system that is read-only and a /proc that shows processes of its own; others get the
filters only.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from ctypes import c_char_p, c_int, c_long, c_uint, c_uint32, c_uint64, c_void_p
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "scripts" / "dbpower-collector.service"

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
AFNOSUPPORT, EQUAL, MASKED_EQUAL = 97, 4, 7
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
LAST_FAMILY = 46
WRITE_EXEC, EXEC = 0x6, 0x4
NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 0x40000
AT_FDCWD, AT_RECURSIVE, MOUNT_SETATTR, READ_ONLY = -100, 0x8000, 442, 1
NO_NEW_PRIVILEGES = 38

_libc = ctypes.CDLL(None, use_errno=True)


def service() -> dict[str, str]:
    """What the unit says, the values of a key that stands there twice one after the other."""
    found: dict[str, str] = {}
    section = ""
    for line in UNIT.read_text().splitlines():
        section = line if line.startswith("[") else section
        name, equals, value = line.partition("=")
        if section == "[Service]" and equals and not line.startswith("#"):
            found[name] = f"{found[name]} {value}" if name in found else value
    return found


def allowed_calls(filters: str, without: str = "") -> set[str]:
    """The names of the calls that `SystemCallFilter=` lets through; what comes behind a ~ is taken away again."""
    sets = _sets()
    allowed, takes_away = set[str](), False
    for word in filters.split():
        takes_away = word.startswith("~") or (takes_away and word.startswith("@"))
        names = set(_members(word.removeprefix("~"), sets))
        allowed = allowed - names if takes_away else allowed | names
    return allowed - {without}


def _sets() -> dict[str, list[str]]:
    said = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True
    )
    sets: dict[str, list[str]] = {}
    name = ""
    for line in said.stdout.splitlines():
        word = line.strip()
        if line.startswith("@"):
            name, sets[word] = word, []
        elif name and word and not word.startswith("#"):
            sets[name].append(word)
    return sets


def _members(name: str, sets: dict[str, list[str]]) -> Iterator[str]:
    if not name.startswith("@"):
        yield name
        return
    for each in sets[name]:
        yield from _members(each, sets)


class _Compare(ctypes.Structure):
    _fields_ = (("arg", c_uint), ("op", c_int), ("a", c_uint64), ("b", c_uint64))


class Filter:
    """One filter of system calls; several that are loaded all have to agree."""

    def __init__(self, default: int) -> None:
        self._lib = ctypes.CDLL("libseccomp.so.2")
        self._lib.seccomp_init.restype, self._lib.seccomp_init.argtypes = c_void_p, (c_uint32,)
        self._lib.seccomp_load.argtypes = (c_void_p,)
        self._lib.seccomp_syscall_resolve_name.argtypes = (c_char_p,)
        self._lib.seccomp_rule_add_array.argtypes = (c_void_p, c_uint32, c_int, c_uint, c_void_p)
        self._context = self._lib.seccomp_init(default)
        assert self._context

    def add(self, action: int, call: str, *conditions: tuple[int, int, int, int]) -> None:
        """For calls of that name whose arguments are so: number, comparison, and what it is compared with."""
        number = self._lib.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:  # this kind of machine has it
            array = (_Compare * len(conditions))(*(_Compare(*each) for each in conditions))
            _demand(self._lib.seccomp_rule_add_array(self._context, action, number, len(conditions), array), call)

    def load(self) -> None:
        """From here on it holds, for what is executed too."""
        _demand(self._lib.seccomp_load(self._context), "seccomp_load")


def filters(settings: dict[str, str], without: str) -> Iterator[Filter]:
    """Those of the unit."""
    calls = Filter(KILL)
    for name in sorted(allowed_calls(settings["SystemCallFilter"], without)):
        calls.add(ALLOW, name)
    families = Filter(ALLOW)
    open_ones = {FAMILIES[name] for name in settings["RestrictAddressFamilies"].split()}
    for number in set(range(LAST_FAMILY)) - open_ones:
        families.add(ERRNO | AFNOSUPPORT, "socket", (0, EQUAL, number, 0))
    yield families
    if settings["MemoryDenyWriteExecute"] == "yes":
        memory = Filter(ALLOW)
        memory.add(KILL, "mmap", (2, MASKED_EQUAL, WRITE_EXEC, WRITE_EXEC))
        memory.add(KILL, "mprotect", (2, MASKED_EQUAL, EXEC, EXEC))
        memory.add(KILL, "pkey_mprotect", (2, MASKED_EQUAL, EXEC, EXEC))
        yield memory
    if settings["RestrictNamespaces"] == "yes":
        namespaces = Filter(ALLOW)
        for flag in NAMESPACES:
            namespaces.add(KILL, "unshare", (0, MASKED_EQUAL, flag, flag))
            namespaces.add(KILL, "clone", (0, MASKED_EQUAL, flag, flag))
        yield namespaces
    yield calls  # at the end: to load a filter is not among what it allows


def _demand(result: int, what: str) -> None:
    if result != 0:
        raise OSError(abs(result) if result < -1 else ctypes.get_errno(), what)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    _demand(_libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()), f"mount {target}")


class _Attributes(ctypes.Structure):
    _fields_ = (("set", c_uint64), ("clear", c_uint64), ("propagation", c_uint64), ("userns", c_uint64))


def _make(target: str, *, set_: int = 0, clear: int = 0, how: int = 0) -> None:
    attributes = _Attributes(set_, clear, 0, 0)
    _libc.syscall.restype, size = c_long, c_long(ctypes.sizeof(attributes))
    _demand(
        _libc.syscall(
            c_long(MOUNT_SETATTR), c_int(AT_FDCWD), target.encode(), c_int(how), ctypes.byref(attributes), size
        ),
        f"mount_setattr {target}",
    )


def shut_in(state: Path, settings: dict[str, str]) -> None:
    """As root: other mounts, and an account that owns nothing but `state`."""
    assert (settings["ProtectSystem"], settings["PrivateUsers"]) == ("strict", "yes")
    _demand(_libc.unshare(NEW_MOUNTS), "unshare")
    _mount("none", "/", "", RECURSIVE | PRIVATE)
    _let_in(Path(sys.base_prefix))
    _mount("proc", "/proc", "proc", 0, f"hidepid={settings['ProtectProc']},subset={settings['ProcSubset']}")
    _mount(str(state), str(state), "", BIND)
    _make("/", set_=READ_ONLY, how=AT_RECURSIVE)
    for path in ("/proc", "/dev", str(state)):
        _make(path, clear=READ_ONLY)
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setresgid(*[nobody.pw_gid] * 3)
    os.setresuid(*[nobody.pw_uid] * 3)
    _libc.prctl(4, 1, 0, 0, 0)  # dumpable again, or its own map of users is not to be written
    _demand(_libc.unshare(NEW_USER), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{nobody.pw_uid} {nobody.pw_uid} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    Path("/proc/self/gid_map").write_text(f"{nobody.pw_gid} {nobody.pw_gid} 1")


def _let_in(prefix: Path) -> None:
    """The interpreter may stand where only root can enter: its way is made anew, with nothing else there."""
    closed = [path for path in reversed(prefix.parents) if not path.stat().st_mode & 1]
    if not closed:
        return
    inside = os.open(prefix, os.O_PATH)
    _mount("tmpfs", str(closed[0]), "tmpfs", 0, "mode=0755")
    prefix.mkdir(parents=True)
    _mount(f"/proc/self/fd/{inside}", str(prefix), "", BIND | RECURSIVE)
    os.close(inside)


def main(words: list[str]) -> None:
    """Becomes the program."""
    without = words.pop(1) if words[0] == "--without" else ""
    state, *program = words[1:] if without else words
    settings = service()
    loaded = list(filters(settings, without))  # before it is shut in: what is asked for them is outside
    if os.geteuid() == 0:
        shut_in(Path(state), settings)
    os.umask(int(settings["UMask"], 8))
    for name in [each for each in os.environ if each.startswith("COVERAGE_")]:  # it would write elsewhere
        del os.environ[name]
    _demand(_libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0), "prctl")
    for each in loaded:
        each.load()
    os.execv(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1:])
