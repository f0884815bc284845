"""The audit of an outbox in words and as JSON. Reads nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from agent import losses
from storage.audit import Account, Audit

GAPS_SHOWN = 20  # to a person; a script gets all there are
_PARTS = ("delivered", "pending", "parked", "discarded", "lost")


def lines(found: Audit) -> Iterator[str]:
    """What a person reads."""
    for account in found.accounts:
        yield _equation(account)
        if account.possible_duplicates:
            yield f"  {account.possible_duplicates:,} delivered records may be there twice if the backend ignores keys"
        yield from (f"  WRONG: {complaint}" for complaint in account.complaints)
    yield from losses.lines(found.losses, GAPS_SHOWN)
    if found.unnamed:
        yield f"WRONG: {found.unnamed:,} lost records are named by no gap"
    if found.damaged_gaps:
        yield f"WRONG: {found.damaged_gaps:,} gaps are not what was written"
    yield "It balances." if found.balances else "It does not balance."


def as_json(found: Audit) -> dict[str, object]:
    """What a script reads: `balances`, `accounts` by topic, `losses` (sums), `gaps` (the last one first), `unnamed`,
    `damaged_gaps`."""
    accounts = {
        account.topic: {**asdict(account), "complaints": list(account.complaints)} for account in found.accounts
    }
    gaps = [losses.as_json(gap) for gap in found.losses.newest]
    return {
        "balances": found.balances,
        "accounts": accounts,
        "losses": [asdict(each) for each in found.losses.sums],
        "gaps": gaps,
        "unnamed": found.unnamed,
        "damaged_gaps": found.damaged_gaps,
    }


def _equation(account: Account) -> str:
    parts = " + ".join(f"{name} {getattr(account, name):,}" for name in _PARTS)
    return f"{account.topic}: captured {account.captured:,} = {parts}"
