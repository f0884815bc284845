"""Programs of another suite are unpacked beside the system, whole or not at all.

What could go wrong: the archive or its key is another one than the machine believes; what cannot be had, or was cut
off, looks as if it were there; the next try begins from nothing; a program runs with libraries that are not its own.
apt-get and dpkg-deb are stood in for by small scripts: what they prove is theirs, and the network is none of a test's.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.dev.server_process import DevServerError
from tests.servers import beside
from tests.servers.beside import Program, _entry_of

WANTED = Program("unstable", "tool", "usr/bin", ("tool",))
NEW_FORMAT = """Types: deb deb-src
URIs: https://archive.example/debian
# a comment
Suites: trixie trixie-updates
Components: main contrib
Trusted: yes
Signed-By: /etc/key.gpg

Types: deb
URIs: https://archive.example/security
Suites: trixie-security
Components: main
"""
OLD_FORMAT = """# deb https://other.example trixie main
deb https://archive.example/security trixie-security main
deb [arch=amd64 trusted=yes signed-by=/etc/key.gpg] https://archive.example/debian trixie main contrib
"""
APT = """#!/bin/sh
echo "$*" >> {calls}
case "$*" in
  *indextargets*) echo "{own} {sources}:1" ;;
  *update*) {update} ;;
  *install*) touch {work}/archives/tool.deb; {install} ;;
esac
"""
DPKG = """#!/bin/sh
mkdir -p "$3/usr/bin" "$3/usr/lib/any-linux-gnu"
cp /bin/sh "$3/usr/bin/tool"
touch "$3/usr/lib/any-linux-gnu/libc.so.6"
printf '#!/bin/sh\\necho "$*"\\n' > "$3/usr/lib/any-linux-gnu/ld-linux-any.so.2"
chmod +x "$3/usr/lib/any-linux-gnu/ld-linux-any.so.2"
"""
StandIn = Callable[[str, str], list[str]]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Puts scripts in the place of apt-get and dpkg-deb: what `update` and `install` do; gives the calls so far."""
    monkeypatch.setenv("TEST_SERVERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "debian", "VERSION_CODENAME": "trixie"})
    (sources := tmp_path / "debian.sources").write_text(NEW_FORMAT)
    calls, work = tmp_path / "calls", WANTED.root.with_name(f"{WANTED.root.name}.unfinished")

    def put(update: str, install: str) -> list[str]:
        words = {"calls": calls, "own": "trixie", "sources": sources, "work": work}
        for name, text in {
            "apt-get": APT.format(update=update, install=install, **words),
            "dpkg-deb": DPKG,
        }.items():
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        return calls.read_text().splitlines() if calls.exists() else []

    return put


def test_the_entry_of_the_own_suite_is_taken_with_its_key_and_without_blind_trust() -> None:
    new, old = _entry_of(NEW_FORMAT, "trixie", "unstable"), _entry_of(OLD_FORMAT, "trixie", "unstable")
    assert new == (
        "Types: deb\nSuites: unstable\nComponents: main\n"
        "URIs: https://archive.example/debian\nSigned-By: /etc/key.gpg\n"
    )
    assert old == "deb [arch=amd64 signed-by=/etc/key.gpg] https://archive.example/debian unstable main\n"


def test_a_suite_that_is_not_configured_has_no_entry() -> None:
    assert (_entry_of(NEW_FORMAT, "sid", "unstable"), _entry_of(OLD_FORMAT, "sid", "unstable")) == (None, None)


def test_a_program_that_was_got_starts_with_its_own_loader_and_libraries(stand_in: StandIn) -> None:
    stand_in("true", "true")
    beside.get(WANTED)
    libraries = f"{WANTED.root}/lib/any-linux-gnu:{WANTED.root}/usr/lib/any-linux-gnu"
    tool = WANTED.bin_dir / "tool"
    said = beside._run([tool, "--one", "two words"])
    assert said == f"--library-path {libraries} --argv0 {tool} {tool}.program --one two words\n"
    calls = stand_in("false", "false")
    beside.get(WANTED)  # it is there: nothing is asked again
    assert stand_in("false", "false") == calls


@pytest.mark.parametrize(
    ("update", "install"), [("echo refused >&2; exit 100", "true"), ("true", "echo cut off >&2; exit 100")]
)
def test_what_cannot_be_had_is_said_and_not_there_and_the_next_try_goes_on(
    stand_in: StandIn, update: str, install: str
) -> None:
    stand_in(update, install)
    with pytest.raises(DevServerError, match=r"apt-get: (refused|cut off)"):
        beside.get(WANTED)
    assert not WANTED.is_there
    work = WANTED.root.with_name(f"{WANTED.root.name}.unfinished")
    (work / "archives" / "partial" / "half.deb").touch()
    (work / "root").mkdir()  # an unpacking that was cut off
    stand_in("true", f"test -e {work}/archives/partial/half.deb")
    beside.get(WANTED)
    assert (WANTED.is_there, work.exists()) == (True, False)


def test_apt_is_told_to_believe_nothing_unsigned(stand_in: StandIn) -> None:
    stand_in("true", "true")
    beside.get(WANTED)
    update, install = (call for call in stand_in("", "true") if "indextargets" not in call)
    for call in (update, install):
        assert "-oAcquire::AllowInsecureRepositories=false" in call
        assert "-oAPT::Get::AllowUnauthenticated=false" in call


def test_another_distribution_is_said(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "fedora"})
    with pytest.raises(DevServerError, match="fedora"):
        beside.get(WANTED)
