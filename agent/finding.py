"""What `doctor` says of one thing: how it is, and what to do when it is wrong. Pure data: looks at nothing itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from storage.errors import CodedError

Verdict = Literal["right", "hint", "wrong", "skipped"]
RIGHT: Final = "right"
HINT: Final = "hint"
WRONG: Final = "wrong"
SKIPPED: Final = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `subject`: what was looked at, in a few words that stay the same.

    `hint`: the agent works, and a person may want to know; `skipped`: could not be looked at, `sentence` says why.
    `code` and `remedy` are those of the error that the agent would tell, empty where all is well.
    """

    subject: str
    verdict: Verdict
    sentence: str
    code: str = ""
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """What a script reads."""
        return asdict(self)


def right(subject: str, sentence: str) -> Finding:
    """All is well."""
    return Finding(subject, RIGHT, sentence)


def wrong(subject: str, error: CodedError) -> Finding:
    """It keeps the agent from doing its work."""
    return Finding(subject, WRONG, error.sentence, error.code, error.remedy)


def hint(subject: str, error: CodedError) -> Finding:
    """The agent works all the same."""
    return Finding(subject, HINT, error.sentence, error.code, error.remedy)


def skipped(subject: str, why: str) -> Finding:
    """Nobody could look."""
    return Finding(subject, SKIPPED, why)
