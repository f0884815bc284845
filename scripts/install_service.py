"""The command line of scripts/install-service: options, rights, exit codes.

Exit codes: 0 done, 1 a step failed, 2 usage, rights, or what is given cannot be used.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.installing import credentials
from scripts.installing.hands import Hands, StepFailed
from scripts.installing.places import HOST, Places
from scripts.installing.service import WHEELS, Service, complaints

CLONE = Path(__file__).resolve().parents[1]
FAILED, UNUSABLE = 1, 2
RUNNING_SYSTEMD = Path("/run/systemd/system")


def parser() -> argparse.ArgumentParser:
    """Its options."""
    made = argparse.ArgumentParser(
        prog="install-service",
        description="Installs the agent from this clone as a systemd service. Said again it is an upgrade: "
        "configuration and outbox stay.",
    )
    add = made.add_argument
    add("--credential", action="append", default=[], metavar="KEY=/PATH", help="a secret that systemd hands over")
    add("--wheels", type=Path, metavar="DIR", help="packages made by `pip wheel`, where no index is reached")
    add("--root", type=Path, default=HOST, metavar="DIR", help="below DIR; no account is made, no systemd told")
    add("--dry-run", action="store_true", help="only says each step")
    add("--uninstall", action="store_true", help="takes it away; configuration and outbox stay")
    add("--purge", action="store_true", help="with --uninstall: configuration, outbox and account too")
    return made


def main(words: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    options = parser().parse_args(words)
    os.umask(0o022)  # the agent's account has to read what root installs
    places = Places(Path(os.path.abspath(options.root)))
    has_systemd = places.is_host and RUNNING_SYSTEMD.is_dir()
    hands = Hands(_say, is_dry=options.dry_run, owns=places.is_host)
    try:
        given = dict(credentials.parsed(each) for each in options.credential)
    except ValueError as error:
        return _refused(str(error))
    wrong = [*_wrong(options, places)]
    if places.is_host and not options.uninstall:
        wrong += complaints(given, hands.asks, has_systemd=has_systemd)
    if wrong:
        return _refused(*wrong)
    for key, path in given.items():
        if Path(path).is_file() and credentials.is_open(Path(path)):
            _say(f"Others can read {path} ({key}): chmod 600 {path}")
    service = Service(places, CLONE, hands, has_systemd=has_systemd)
    try:
        if options.uninstall:
            service.uninstall(purge=options.purge)
        else:
            service.install(options.wheels, given)
    except StepFailed as error:
        print(f"install-service: {error}\nIt is not complete; said again it goes on.", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("install-service: stopped; said again it goes on.", file=sys.stderr)
        return FAILED
    return 0


def _wrong(options: argparse.Namespace, places: Places) -> Iterator[str]:
    if options.purge and not options.uninstall:
        yield "--purge goes with --uninstall only"
    if options.wheels is not None and len(list(options.wheels.glob(WHEELS))) != 1:
        makes = f"`pip wheel . -w {options.wheels}` makes them"
        yield f"{options.wheels} should hold one {WHEELS} and what it needs; {makes}"
    if places.is_host and os.geteuid() != 0 and not options.dry_run:
        yield "only root can do that: sudo scripts/install-service (--dry-run shows the steps)"


def _refused(*sentences: str) -> int:
    for sentence in sentences:
        print(f"install-service: {sentence}", file=sys.stderr)
    return UNUSABLE


def _say(sentence: str) -> None:
    print(sentence, flush=True)


if __name__ == "__main__":
    sys.exit(main())
