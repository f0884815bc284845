"""What can go wrong with a stored file, each with a code, a sentence and a remedy. Raises nothing itself."""

from __future__ import annotations

from typing import ClassVar, Self

from storage.plain import plain


class CodedError(Exception):
    """Something went wrong.

    The docstring of a subclass is its sentence; `code` names it in logs and in the README; `remedy` says what
    a person can do. `detail` adds what is known of this one case and must never hold a secret; mostly somebody else
    has written it, so it becomes one plain line of `at_most` characters here.
    """

    code: ClassVar[str] = "XX-00"
    remedy: ClassVar[str] = ""
    at_most: ClassVar[int] = 10_000

    def __init__(self, detail: str = "") -> None:
        self.detail = plain(detail, self.at_most)
        super().__init__(self.detail)

    @property
    def sentence(self) -> str:
        """The first line of the docstring, with the detail of this case."""
        text = (type(self).__doc__ or "").strip().splitlines()[0]
        return f"{text.rstrip('.')}: {self.detail}" if self.detail else text

    def bare(self) -> Self:
        """Itself, for whoever keeps it: without the frames it came through, which hold all that was at hand there."""
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)

    def __str__(self) -> str:
        text = f"[{self.code}] {self.sentence}"
        text += "" if text.endswith((".", "?", "!")) else "."
        return f"{text} {self.remedy}" if self.remedy else text.rstrip(".")


class OutboxError(CodedError):
    """The outbox cannot be used."""

    code = "OB-00"


class OutboxForeign(OutboxError):
    """The outbox file belongs to another program."""

    code = "OB-01"
    remedy = "Choose another data_dir, or move that file away; it was not touched."


class OutboxNewer(OutboxError):
    """The outbox was written by a newer version of the agent."""

    code = "OB-02"
    remedy = "Install that version or a later one; the file was not touched."


class OutboxLocked(OutboxError):
    """Another agent works on this data directory."""

    code = "OB-03"
    remedy = "Stop that agent first, or give this one a data_dir of its own."


class OutboxInaccessible(OutboxError):
    """The data directory or a file in it cannot be used."""

    code = "OB-04"
    remedy = "Give the agent's user read and write access to data_dir, on a local disk."


class OutboxNotDurable(OutboxError):
    """SQLite does not keep the durability that was asked for."""

    code = "OB-05"
    remedy = "Put data_dir on a local file system that supports SQLite's WAL mode."


class OutboxFull(OutboxError):
    """There is no room to store more."""

    code = "OB-06"
    remedy = "Free disk space or raise outbox.max_bytes; collecting goes on by itself and the database keeps its rows."


class OutboxBroken(OutboxError):
    """Reading or writing the outbox failed."""

    code = "OB-07"
    remedy = "Check the disk and the system's log; what was acknowledged stays in the file."


class OutboxGone(OutboxError):
    """The outbox file was deleted or moved while the agent works on it."""

    code = "OB-09"
    remedy = "Put it back or restart the agent; nothing more is collected until then, what waits is still delivered."


class EnvelopeGone(OutboxError):
    """An envelope that was about to be recorded as sent is not in the outbox any more."""

    code = "OB-08"
    remedy = "Somebody discarded it meanwhile; nothing needs to be done."


class OutboxDamaged(OutboxError):
    """The outbox file is damaged."""

    code = "OB-10"
    remedy = "It is rebuilt from what can be read; the damaged file is kept beside it, and what was lost is a gap."


class OutboxOlder(OutboxError):
    """The agent that works on this outbox is older than this program."""

    code = "OB-11"
    remedy = "Restart the agent with this version, or use the program that belongs to it; the file was not touched."


class EnvelopeUnknown(OutboxError):
    """There is no such envelope."""

    code = "OB-12"
    remedy = "`outbox ls` and `outbox parked` show the numbers that there are."


class PartlyDelivered(OutboxError):
    """The backend has taken a part of it and would store that part twice."""

    code = "OB-13"
    remedy = "`outbox show` tells what is in it and why; `outbox discard` gives up the rest."


class ParcelDamaged(CodedError):
    """The export is not what was written."""

    code = "EX-01"
    remedy = "Carry the file once more, or export again; nothing of it was delivered."


class ParcelUnwritable(CodedError):
    """The export cannot be written."""

    code = "EX-02"
    remedy = "Name a place with room that may be written; nothing was left there."


class ChoiceUnclear(CodedError):
    """What of the outbox is meant is not clear."""

    code = "EX-03"
    remedy = "Give --since and --until as numbers of envelopes or as times, the earlier one first."


class OutboxUnbalanced(OutboxError):
    """The outbox does not hold what its books say."""

    code = "OB-14"
    remedy = (
        "`python -m agent audit` says what is missing; keep a copy of data_dir and restart the agent, which names it."
    )
