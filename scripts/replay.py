"""Delivers or exports what waits in the outbox of an agent whose machine is gone: scripts/replay.py OUTBOX ...

Exporting needs nothing but Python: `python3 scripts/replay.py OUTBOX --export carried.jsonl.gz`. Delivering needs what
the agent needs (requirements.txt). The outbox is only read.

Exit codes: 0 fine (also when nothing was to be done), 1 found something (damage, a record that was refused, Ctrl-C),
2 usage, files, or a backend that takes nothing.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.replaying.meant import CUT, FOUND, LINE_EVERY_S, UNUSABLE, heads_of, readers
from storage.choice import NEWEST, OLDEST
from storage.errors import CodedError
from storage.export import Export
from storage.table import Envelopes

MIN_RATE, MAX_RATE = 0.01, 1e9


def main(words: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    options = _options(words)
    try:
        if options.export is not None:
            return _export(options)
        from scripts.replaying.deliver import deliver  # noqa: PLC0415 - it needs packages

        return deliver(options)
    except CodedError as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    except ImportError as error:
        missing = f"Delivering needs a package that is not here ({error.name})"
        print(f"{missing}: pip install -r requirements.txt, or export.", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print(CUT, file=sys.stderr)
        return FOUND


def parser() -> argparse.ArgumentParser:
    """Its options."""
    made = argparse.ArgumentParser(prog="replay.py", description=(__doc__ or "").split("\n\n")[0])
    add = made.add_argument
    add("outbox", nargs="*", type=Path, metavar="OUTBOX", help="outbox.sqlite3, its directory, or one of such files")
    add("--config", type=Path, help="configuration of the agent: backend, key and collector")
    add("--backend-url")
    add("--api-key", help="better: DBPOWER_API_KEY or DBPOWER_API_KEY_FILE in the environment")
    add("--collector-id", type=int)
    add("--ca", type=Path, help="PEM file of the authorities that may have signed the backend's certificate")
    add("--cert", type=Path, help="client certificate, PEM")
    add("--key", type=Path, help="its key, when it is in a file of its own")
    add("--insecure", action="store_true", help="does not ask whether it is the backend that is spoken to")
    add("--dry-run", action="store_true", help="says what would be delivered")
    add("--since", help="from this envelope number or time on")
    add("--until", help="up to this envelope number or time")
    add("--topic", choices=["queries", "command_result"])
    add("--parked", action="store_true", help="also what the backend had refused, if it has no part of it")
    add("--limit", type=int, help="so many records at most, in whole envelopes")
    add("--rate", type=float, help="records a second at most")
    add("--order", choices=[OLDEST, NEWEST], default=OLDEST)
    add("--ledger", type=Path, help="where is remembered what was accepted; default: beside the outbox")
    add("--ack", action="store_true", help="removes from the outbox what was accepted; no agent may run on it")
    add("--verify", action="store_true", help="compares with what a development backend has")
    add("--export", type=Path, help="a file to carry: .jsonl.gz; or to look at: .csv, .parquet")
    add("--import", dest="parcel", type=Path, help="delivers such a .jsonl.gz")
    add("--json", action="store_true", help="one JSON object at the end")
    add("--log-level", choices=["DEBUG", "INFO", "WARNING", "ERROR"], default="ERROR", help="what a delivery tells")
    add("--log-format", choices=["text", "json"], default="text")
    return made


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    reader = parser()
    options = reader.parse_args(words)
    if bool(options.outbox) == (options.parcel is not None):
        reader.error("either OUTBOX or --import FILE is wanted")
    if options.limit is not None and options.limit < 1:
        reader.error("--limit wants 1 or more")
    if options.rate is not None and not MIN_RATE <= options.rate <= MAX_RATE:
        reader.error(f"--rate wants {MIN_RATE:g} to {MAX_RATE:g}")
    if options.ack and options.parcel:
        reader.error("--ack goes with an OUTBOX, not with --import")
    ways = [name for name in ("export", "dry_run", "verify", "ack") if getattr(options, name)]
    if len(ways) > 1 or (options.export and options.parcel):
        reader.error("one of --export, --import, --dry-run, --verify, --ack at a time; only --import may be tried out")
    return options


def _export(options: argparse.Namespace) -> int:
    with ExitStack() as stack:
        opened, wrong = readers(options, stack)
        taken = [(reader, head) for reader in opened for head in heads_of(reader, options)]
        export = Export(taken, _told_now_and_then())
        told = export.write(options.export, {".parquet": _write_parquet})
        wrong += export.wrong
    print(json.dumps(told) if options.json else f"exported {told['records']:,} records to {told['file']}")
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    return FOUND if wrong else 0


def _told_now_and_then() -> Callable[[int], None]:
    """Says how many records were read, every 5 s."""
    records, told_at_s = 0, time.monotonic()

    def tell(more: int) -> None:
        nonlocal records, told_at_s
        records += more
        if time.monotonic() - told_at_s >= LINE_EVERY_S:
            told_at_s = time.monotonic()
            print(f"{records:,} records read", file=sys.stderr)

    return tell


def _write_parquet(path: Path, envelopes: Envelopes) -> int:
    from agent.parquet import write_parquet  # noqa: PLC0415 - it needs packages

    return write_parquet(path, envelopes)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is half written is tidied up
    sys.exit(main())
