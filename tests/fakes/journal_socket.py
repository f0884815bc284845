"""The socket of systemd's journal: a real unix datagram socket, whose entries are taken apart as journald does."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.notify_socket import NotifySocket

Entry = dict[str, str]


class JournalSocket(NotifySocket):
    """`with JournalSocket(path) as journal:`; what came is in `entries`. Raises when an entry is not well-formed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)

    @property
    def entries(self) -> list[Entry]:
        """Every entry so far, in order, its fields by their names."""
        return [parsed(message.encode("utf-8", "surrogateescape")) for message in self.heard]

    def messages(self) -> list[str]:
        """What a person reads."""
        return [entry["MESSAGE"] for entry in self.entries]


def parsed(datagram: bytes) -> Entry:
    """An entry as systemd's documentation describes it, each field once."""
    entry: Entry = {}
    while datagram:
        line, end, rest = datagram.partition(b"\n")
        assert end, "every field ends with a line end"
        name, equals, value = line.partition(b"=")
        if not equals:
            size, rest = int.from_bytes(rest[:8], "little"), rest[8:]
            value, end, rest = rest[:size], rest[size : size + 1], rest[size + 1 :]
            assert (len(value), end) == (size, b"\n")
        assert name.replace(b"_", b"").isalnum()
        assert name == name.upper()
        assert name[:1].isalpha(), "journald drops the others"
        assert name.decode() not in entry
        entry[name.decode()] = value.decode()
        datagram = rest
    return entry
