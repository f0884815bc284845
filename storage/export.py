"""Envelopes as a file: to carry (.jsonl.gz), or to look at (.csv, and what the caller knows to write besides)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from storage import parcel
from storage.envelope import Envelope
from storage.errors import OutboxDamaged, ParcelUnwritable
from storage.reader import Head, OutboxReader
from storage.table import Envelopes, write_csv

CARRIED = ".jsonl.gz"
Write = Callable[[Path, Envelopes], int]  # a table; gives its rows


class Export:
    """`chosen`: what is meant, each with the reader of its outbox. `tell` hears the records of each envelope read.

    Of several copies of an envelope one is taken; one that cannot be read is left out, and `wrong` says so.
    """

    def __init__(
        self, chosen: Sequence[tuple[OutboxReader, Head]], tell: Callable[[int], None] = lambda _: None
    ) -> None:
        self._chosen = list({head.key: (reader, head) for reader, head in chosen}.values())  # copies of one outbox
        self._tell = tell
        readers = list(dict.fromkeys(reader for reader, _ in chosen))
        self._salvaged = [str(reader.salvaged) for reader in readers if reader.salvaged is not None]
        self._unreadable = dict.fromkeys(sentence for reader in readers for sentence in reader.unreadable)

    @property
    def wrong(self) -> list[str]:
        """What could not be read, one sentence for each."""
        return [*self._salvaged, *(f"not readable: {each}" for each in self._unreadable)]

    def write(self, path: Path, tables: Mapping[str, Write] | None = None) -> dict[str, object]:
        """Writes the file aside and renames it when it is whole; gives what a script wants to know of it.

        `tables`: by the end of a name, who writes it. Raises ParcelUnwritable or an OutboxError; then there is none.
        """
        if path.name.endswith(CARRIED):
            manifest = parcel.write(path, self._envelopes())
            told: dict[str, object] = {name: getattr(manifest, name) for name in manifest.__slots__}
        else:
            writers = {".csv": write_csv, **(tables or {})}
            write = next((writer for end, writer in writers.items() if path.name.endswith(end)), None)
            if write is None:
                raise ParcelUnwritable(f"{path} (its name has to end in {CARRIED}, {' or '.join(writers)})")
            told = {"records": write(path, self._envelopes)}
        return {"file": str(path), **told, "wrong": self.wrong}

    def _envelopes(self) -> Iterator[Envelope]:
        for reader, head in self._chosen:
            try:
                yield reader.load(head)
            except OutboxDamaged as error:
                self._unreadable[error.detail] = None
            self._tell(head.records)
