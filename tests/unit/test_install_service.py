"""The steps of scripts/install-service, with hands that only write down what they would do to this machine.

What could go wrong: an upgrade stops the service and leaves it so, or changes configuration and outbox; a secret stands
in the unit or in what is printed; a credential is lost at the next installation; a service is started that cannot run;
a dry run changes something; on a hardened host the agent's account cannot read its own program; why an upgrade failed
is hidden by what failed after it; a full disk is a traceback.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config.environment import variables
from agent.config.layers import load
from scripts import install_service
from scripts.installing import credentials
from scripts.installing.hands import Hands, StepFailed
from scripts.installing.places import ACCOUNT, Places
from scripts.installing.service import HIDDEN, Service, complaints

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "config.example.json").read_text()


class Host(Places):
    """A directory that passes for this machine."""

    @property
    def is_host(self) -> bool:
        return True


class NotingHands(Hands):
    """Does what is done to files, and notes the programs. `says`: what those answer that only look; others say no."""

    def __init__(self, *, is_dry: bool = False) -> None:
        self.said: list[str] = []
        super().__init__(self.said.append, is_dry=is_dry, owns=False)
        self.ran: list[tuple[str, ...]] = []
        self.says: dict[tuple[str, ...], str] = {("systemctl", "--version"): "systemd 252 (252.1)\n"}
        self.fails: Callable[[tuple[str, ...]], bool] = lambda _: False

    def asks(self, *argv: str) -> str | None:
        return self.says.get(argv)

    def _run(self, step: str, argv: tuple[str | Path, ...]) -> None:
        words = tuple(map(str, argv))
        self.ran.append(words)
        if self.fails(words):
            raise StepFailed(step)

    def systemctl(self) -> list[str]:
        """What systemd was told."""
        return [" ".join(words[1:]) for words in self.ran if words[0] == "systemctl"]


class Bench:
    def __init__(self, root: Path, *, has_systemd: bool = True, is_dry: bool = False) -> None:
        self.places = Host(root)
        self.hands = NotingHands(is_dry=is_dry)
        self.has_systemd = has_systemd

    def service(self) -> Service:
        return Service(self.places, ROOT, self.hands, has_systemd=self.has_systemd)

    def install(self, **given: str) -> list[str]:
        """What it has said."""
        self.hands.said.clear()
        self.hands.ran.clear()
        self.service().install(None, {key.replace("__", "."): path for key, path in given.items()})
        return self.hands.said

    def fill_in(self) -> None:
        tree = json.loads(EXAMPLE)
        tree["db_config"]["password"] = "hunter2"
        self.places.config.write_text(json.dumps({**tree, "api_key": "collector_1_real"}))

    def runs(self) -> None:
        """From now on the service is active, and its account is there."""
        self.hands.says["systemctl", "is-active", "dbpower-collector"] = "active\n"
        self.hands.says["getent", "passwd", ACCOUNT] = (
            "dbpower:x:999:999::/var/lib/dbpower-collector:/usr/sbin/nologin\n"
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_first_installation_makes_everything_and_starts_nothing_that_cannot_run(bench: Bench) -> None:
    said = bench.install()
    at = bench.places
    assert {"useradd", "--system", "--no-create-home", "/usr/sbin/nologin", ACCOUNT} <= set(bench.hands.ran[0])
    assert bench.hands.systemctl() == ["daemon-reload", "enable dbpower-collector"]
    assert at.unit.read_bytes() == (ROOT / "scripts" / at.unit.name).read_bytes()
    assert json.loads(at.config.read_text()) == json.loads(EXAMPLE)
    modes = [path.stat().st_mode & 0o777 for path in (at.config, at.unit, at.home, at.state)]
    assert modes == [0o640, 0o644, 0o755, 0o700]
    assert not at.drop_ins.exists()
    assert said[-4:-2] == ["Installed, and not started.", "  1. api_key in config.json is none yet"]
    assert "DB_PASSWORD" in said[-2]
    assert said[-1] == "  3. systemctl start dbpower-collector"


def test_one_that_is_filled_in_is_started(bench: Bench) -> None:
    bench.install()
    bench.fill_in()
    said = bench.install()
    assert bench.hands.systemctl()[-1] == "restart dbpower-collector"
    assert said[-1].startswith("It runs: ")
    assert "hunter2" not in "".join(said)


def test_an_upgrade_fetches_first_then_stops_installs_and_starts_and_changes_nothing_of_a_person(bench: Bench) -> None:
    bench.install(api_key="/etc/key")
    at = bench.places
    bench.runs()
    at.config.write_text("{}")  # whatever it says, it ran with it
    (at.state / "outbox.sqlite3").write_text("precious")
    for name in ("agent", "storage"):
        (at.home / name).mkdir()
    before = {path: path.read_bytes() for path in (at.config, at.credentials, at.state / "outbox.sqlite3")}
    said = bench.install()
    assert {path: path.read_bytes() for path in before} == before
    assert not (at.home / "agent").exists()  # it would be taken for the program: the unit starts it from there
    assert bench.hands.systemctl() == [
        *("stop dbpower-collector", "daemon-reload", "enable dbpower-collector", "restart dbpower-collector")
    ]
    words = [" ".join(each) for each in bench.hands.ran]
    order = [
        next(at for at, each in enumerate(words) if part in each) for part in ("pip wheel", " stop ", "pip install")
    ]
    assert order == sorted(order)
    assert f"{at.config} stays as it is" in said


@pytest.mark.parametrize(
    ("failing", "told"),
    [
        (("wheel",), []),
        (("install",), ["stop dbpower-collector", "start dbpower-collector"]),
        (("daemon-reload",), ["stop dbpower-collector", "daemon-reload", "start dbpower-collector"]),
    ],
)
def test_a_service_that_ran_runs_again_when_its_upgrade_fails(
    bench: Bench, failing: tuple[str], told: list[str]
) -> None:
    bench.install()
    bench.fill_in()
    bench.runs()
    bench.hands.fails = lambda words: failing[0] in words
    with pytest.raises(StepFailed):
        bench.install()
    assert bench.hands.systemctl() == told


def test_why_an_upgrade_failed_is_told_also_when_the_service_does_not_start_again(bench: Bench) -> None:
    bench.install()
    bench.fill_in()
    bench.runs()
    bench.hands.fails = lambda words: "daemon-reload" in words or "start" in words
    with pytest.raises(StepFailed) as caught:
        bench.install()
    why, then = str(caught.value).splitlines()
    assert (why, then) == (
        "have systemd read its units again",
        "Then it did not start either: start the service again, as it is now",
    )


def test_an_upgrade_that_was_stopped_by_hand_says_so_when_the_service_does_not_start_again(bench: Bench) -> None:
    bench.install()
    bench.runs()

    def fails(words: tuple[str, ...]) -> bool:
        if "daemon-reload" in words:
            raise KeyboardInterrupt
        return "start" in words

    bench.hands.fails = fails
    with pytest.raises(StepFailed, match=r"KeyboardInterrupt\nThen it did not start either: start the service again"):
        bench.install()


def test_what_the_system_refuses_at_copying_and_changing_is_a_failed_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = NotingHands()
    file, is_file = tmp_path / "file", tmp_path / "file" / "below"
    file.write_text("old")
    with pytest.raises(StepFailed, match=r"copy .*file"):
        hands.copy(file, is_file)

    def full(_: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, f"no room for {len(content)} bytes")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StepFailed, match=r"change .*file: .*no room for 3 bytes"):
        hands.rewrite(file, b"old", b"new")


def test_without_room_to_work_in_nothing_is_begun(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(bench.places.root / "no-such-directory"))
    with pytest.raises(StepFailed, match="make a directory to work in"):
        bench.install()
    assert (bench.hands.ran, bench.hands.said) == ([], [])


def test_the_command_beside_the_program_is_for_root_to_change_and_goes_with_it(bench: Bench) -> None:
    bench.install()
    command = bench.places.command
    assert command.stat().st_mode & 0o777 == 0o755
    assert command.read_text().splitlines()[0] == "#!/opt/dbpower-collector/.venv/bin/python -I"
    bench.service().uninstall(purge=False)
    assert not command.exists()


def test_a_dry_run_says_every_step_and_does_none(tmp_path: Path) -> None:
    dry, real = Bench(tmp_path / "dry", is_dry=True), Bench(tmp_path / "real")
    steps = [line.removeprefix("would ") for line in dry.install(api_key="/etc/key")]
    assert (dry.hands.ran, (tmp_path / "dry").exists()) == ([], False)
    done = [line.removeprefix("- ") for line in real.install(api_key="/etc/key") if line.startswith("- ")]
    assert [step.replace(str(tmp_path / "dry"), "") for step in steps] == [
        step.replace(str(tmp_path / "real"), "") for step in done
    ]
    before = sorted(real.places.root.rglob("*"))
    gone = Bench(tmp_path / "real", is_dry=True)
    gone.service().uninstall(purge=True)
    assert (sorted(real.places.root.rglob("*")), gone.hands.ran) == (before, [])
    assert all(line.startswith("would ") for line in gone.hands.said)


def test_without_systemd_it_is_installed_all_the_same(tmp_path: Path) -> None:
    bench = Bench(tmp_path, has_systemd=False)
    said = bench.install()
    assert (bench.hands.systemctl(), bench.places.unit.exists()) == ([], True)
    assert "Installed; no systemd was told." in said


# -- credentials -----------------------------------------------------------------------------------------------------


def test_a_credential_is_loaded_by_systemd_and_read_by_the_agent_as_a_file(bench: Bench) -> None:
    bench.install(api_key="/etc/my%key", db_config__password="/etc/pw")
    assert bench.places.credentials.read_text().splitlines()[1:] == [
        "[Service]",
        "LoadCredential=api_key:/etc/my%%key",
        "Environment=DBPOWER_API_KEY_FILE=%d/api_key",
        "LoadCredential=db_config.password:/etc/pw",
        "Environment=DBPOWER_DB_CONFIG_PASSWORD_FILE=%d/db_config.password",
    ]
    tree = json.loads(bench.places.config.read_text())
    assert ("api_key" in tree, "password" in tree["db_config"]) == (False, False)
    assert bench.hands.systemctl()[-1] == "restart dbpower-collector"  # nothing is missing any more


def test_a_credential_stays_when_another_one_is_given_later_and_when_none_is(bench: Bench) -> None:
    bench.install(api_key="/etc/my%key")
    bench.install(db_config__password="/etc/pw")
    bench.install()
    text = bench.places.credentials.read_text()
    assert credentials.loaded(text) == {"api_key": "/etc/my%key", "db_config.password": "/etc/pw"}
    bench.install(api_key="/etc/other")
    assert credentials.loaded(bench.places.credentials.read_text())["api_key"] == "/etc/other"


@pytest.mark.parametrize("key", ["api_key", "db_config.password", "databases.or-d.1.db_config.password"])
def test_the_variable_of_a_credential_is_one_that_the_agent_reads(key: str) -> None:
    known = variables({"databases": [{"name": "or-d.1"}]})
    assert credentials.variable(key) in known


def test_the_agent_takes_the_first_configuration_with_what_systemd_hands_over(tmp_path: Path) -> None:
    given = {"api_key": "/x", "db_config.password": "/y"}
    path = tmp_path / "config.json"
    path.write_text(credentials.first_config(EXAMPLE, given))
    for key in given:
        (tmp_path / key).write_text(f"secret of {key}\n".replace(" ", "-"))
    environment = {f"{credentials.variable(key)}_FILE": str(tmp_path / key) for key in given}
    config, _ = load(path, environment, {})
    assert config.api_key.get_secret_value() == "secret-of-api_key"
    assert config.watches[0].db_config.password.get_secret_value() == "secret-of-db_config.password"


@pytest.mark.parametrize("option", ["", "api_key", "=/x", "api_key=", "api_key=x", "api_key=/a b", "Api=/x", "a=/x:y"])
def test_a_credential_that_systemd_would_misread_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert install_service.main(["--dry-run", "--root", "/nowhere", "--credential", option]) == 2
    assert "should be KEY=/PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "environment", "given", "expected"),
    [
        (EXAMPLE, "", {}, 2),
        (EXAMPLE, "DB_PASSWORD='x'\n", {}, 1),
        (EXAMPLE, "DB_PASSWORD='x'\nDBPOWER_API_KEY='y'\n", {}, 0),
        (EXAMPLE, "DB_PASSWORD='x'\nDBPOWER_API_KEY_FILE=/etc/key\n", {}, 0),
        (EXAMPLE, "DB_PASSWORD='x'\n# DBPOWER_API_KEY_FILE=/etc/key\n", {}, 1),
        (EXAMPLE, "DB_PASSWORD='x'\n", {"api_key": "/x"}, 0),
        (EXAMPLE.replace("abc123...", "real"), "# DB_PASSWORD=\n", {}, 1),
        (EXAMPLE.replace("${DB_PASSWORD}", "$${DB_PASSWORD}").replace("abc123...", "real"), "", {}, 0),
        ("{}", "", {}, 1),
        ("[]", "", {}, 1),
        ("{", "", {"api_key": "/x"}, 1),
        ("", "", {}, 1),
    ],
)
def test_what_is_still_missing_is_counted(config: str, environment: str, given: dict[str, str], expected: int) -> None:
    assert len(credentials.lacks(config, EXAMPLE, environment, given)) == expected


def test_a_configuration_that_a_windows_editor_saved_is_read_as_the_agent_reads_it(bench: Bench) -> None:
    bench.install()
    bench.fill_in()
    bench.places.config.write_bytes(b"\xef\xbb\xbf" + bench.places.config.read_bytes())
    load(bench.places.config, {}, {})
    assert bench.install()[-1].startswith("It runs: ")


@pytest.mark.parametrize("key", ["collector_id.x", "collector_id.x.y", "db_config.nothing", "nothing.at.all"])
def test_a_credential_for_what_is_not_in_the_example_leaves_it_as_it_is(key: str) -> None:
    assert json.loads(credentials.first_config(EXAMPLE, {key: "/a"})) == json.loads(EXAMPLE)


@pytest.mark.parametrize(
    ("said", "expected"), [("systemd 250 (250.1)\n", True), ("systemd 249\n", False), ("", False), ("nonsense", False)]
)
def test_an_older_systemd_is_told_apart(said: str, expected: bool) -> None:
    assert credentials.is_at_least(said, credentials.CREDENTIALS_SINCE) is expected


def test_a_credential_that_is_not_there_or_not_understood_here_is_told_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.base_prefix", "/usr")
    key = tmp_path / "key"
    old = {("systemctl", "--version"): "systemd 247 (247.3)\n"}
    (missing,) = complaints({"api_key": str(key)}, lambda *_: "systemd 252", has_systemd=True)
    assert missing == f"api_key: {key} cannot be read"
    key.touch()
    assert complaints({"api_key": str(key)}, lambda *_: "systemd 252", has_systemd=True) == []
    assert complaints({}, lambda *argv: old[argv], has_systemd=True) == []
    (why,) = complaints({"api_key": str(key)}, lambda *argv: old[argv], has_systemd=True)
    assert "systemd 250" in why


@pytest.mark.parametrize("prefix", [f"{hidden}/python" for hidden in HIDDEN])
def test_a_python_that_the_account_cannot_run_is_refused(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.base_prefix", prefix)
    (why,) = complaints({}, lambda *_: None, has_systemd=True)
    assert why == f"the user {ACCOUNT} cannot run the Python in {prefix}: install that of the distribution"


# -- uninstall -------------------------------------------------------------------------------------------------------


def test_uninstalling_keeps_what_a_person_wrote_and_what_waits(bench: Bench) -> None:
    bench.install(api_key="/etc/key")
    bench.runs()
    at = bench.places
    (at.state / "outbox.sqlite3").write_text("precious")
    bench.hands.ran.clear()
    bench.service().uninstall(purge=False)
    assert bench.hands.systemctl() == ["disable --now dbpower-collector", "daemon-reload"]
    assert [path.exists() for path in (at.unit, at.drop_ins, at.venv)] == [False] * 3
    assert [path.exists() for path in (at.config, at.state / "outbox.sqlite3")] == [True] * 2
    assert bench.hands.said[-1] == f"Uninstalled. Kept, until --purge: {at.config}, {at.state}"
    assert "userdel" not in {words[0] for words in bench.hands.ran}


def test_a_purge_keeps_nothing_and_may_be_said_later_and_twice(bench: Bench) -> None:
    bench.install()
    bench.runs()
    at = bench.places
    for purge in (False, True, True):
        bench.service().uninstall(purge=purge)
    assert [path.exists() for path in (at.home, at.state, at.unit)] == [False] * 3
    assert ("userdel", ACCOUNT) in bench.hands.ran


# -- the command line ------------------------------------------------------------------------------------------------


def test_a_purge_alone_and_wheels_that_are_none_are_usage_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install_service.main(["--purge", "--root", str(tmp_path)]) == 2
    assert install_service.main(["--wheels", str(tmp_path), "--root", str(tmp_path / "root")]) == 2
    assert "pip wheel . -w" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("sys.base_prefix", "/usr")
    assert install_service.main([]) == 2
    assert "sudo scripts/install-service" in capsys.readouterr().err


@pytest.mark.parametrize("umask", [0o077, 0o027])
def test_on_a_hardened_host_the_agents_account_can_read_its_program(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        assert install_service.main(["--dry-run", "--root", str(tmp_path)]) == 0
        now = os.umask(umask)
    finally:
        os.umask(before)
    assert now == 0o022
