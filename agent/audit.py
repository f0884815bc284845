"""The audit of an outbox in words and as JSON. Reads nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from storage.audit import Account, Audit
from storage.envelope import Gap

_PARTS = ("delivered", "pending", "parked", "discarded", "lost")


def lines(found: Audit) -> Iterator[str]:
    """What a person reads."""
    for account in found.accounts:
        yield _equation(account)
        if account.possible_duplicates:
            yield f"  {account.possible_duplicates:,} delivered records may be there twice if the backend ignores keys"
        yield from (f"  WRONG: {complaint}" for complaint in account.complaints)
    yield f"gaps: {len(found.gaps)}"
    yield from (f"  {_sentence(gap)}" for gap in found.gaps)
    if found.unnamed:
        yield f"WRONG: {found.unnamed:,} lost records are named by no gap"
    yield "It balances." if found.balances else "It does not balance."


def as_json(found: Audit) -> dict[str, object]:
    """What a script reads: `balances`, `accounts` by topic, `gaps` and `unnamed`."""
    accounts = {
        account.topic: {**asdict(account), "complaints": list(account.complaints)} for account in found.accounts
    }
    gaps = [asdict(gap) for gap in found.gaps]
    return {"balances": found.balances, "accounts": accounts, "gaps": gaps, "unnamed": found.unnamed}


def _equation(account: Account) -> str:
    parts = " + ".join(f"{name} {getattr(account, name):,}" for name in _PARTS)
    return f"{account.topic}: captured {account.captured:,} = {parts}"


def _sentence(gap: Gap) -> str:
    count = "an unknown number" if gap.estimate is None else f"about {gap.estimate:,}"
    between = f", {gap.since or 'ever'} to {gap.until or 'now'}" if gap.since or gap.until else ""
    return f"{gap.source}: {count} ({gap.reason}: {gap.detail}){between}"
