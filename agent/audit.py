"""The audit of an outbox in words and as JSON. Reads nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from agent.losses import as_json as gap_as_json
from storage.audit import Account, Audit
from storage.envelope import Gap, Losses, LossSum

GAPS_SHOWN = 20  # to a person; a script gets all there are
_PARTS = ("delivered", "pending", "parked", "discarded", "lost")


def lines(found: Audit) -> Iterator[str]:
    """What a person reads."""
    for account in found.accounts:
        yield _equation(account)
        if account.possible_duplicates:
            yield f"  {account.possible_duplicates:,} delivered records may be there twice if the backend ignores keys"
        yield from (f"  WRONG: {complaint}" for complaint in account.complaints)
    yield from _known(found.losses)
    if found.unnamed:
        yield f"WRONG: {found.unnamed:,} lost records are named by no gap"
    yield "It balances." if found.balances else "It does not balance."


def as_json(found: Audit) -> dict[str, object]:
    """What a script reads: `balances`, `accounts` by topic, `losses` (sums), `gaps` (the last one first), `unnamed`."""
    accounts = {
        account.topic: {**asdict(account), "complaints": list(account.complaints)} for account in found.accounts
    }
    losses = [asdict(each) for each in found.losses.sums]
    gaps = [gap_as_json(gap) for gap in found.losses.newest]
    return {
        "balances": found.balances,
        "accounts": accounts,
        "losses": losses,
        "gaps": gaps,
        "unnamed": found.unnamed,
    }


def _known(losses: Losses) -> Iterator[str]:
    yield f"gaps: {sum(each.times for each in losses.sums):,}"
    for each in losses.sums:
        yield f"  {each.source}: {each.reason}, {_times(each.times)}, {_number(each)}"
    if losses.newest:
        yield f"the last {len(losses.newest[:GAPS_SHOWN])} of them:"
    yield from (f"  {_sentence(gap)}" for gap in losses.newest[:GAPS_SHOWN])


def _times(times: int) -> str:
    return "once" if times == 1 else f"{times:,} times"


def _number(each: LossSum) -> str:
    unknown = f"an unknown number {_times(each.unknown)}" if each.unknown else ""
    known = f"about {each.estimate:,}" if each.unknown < each.times else ""
    return " and ".join(filter(None, (known, unknown)))


def _equation(account: Account) -> str:
    parts = " + ".join(f"{name} {getattr(account, name):,}" for name in _PARTS)
    return f"{account.topic}: captured {account.captured:,} = {parts}"


def _sentence(gap: Gap) -> str:
    count = "an unknown number" if gap.estimate is None else f"about {gap.estimate:,}"
    between = f", {gap.since or 'ever'} to {gap.until or 'now'}" if gap.since or gap.until else ""
    often = f", {_times(gap.times)}" if gap.times > 1 else ""
    return f"{gap.source}: {count} ({gap.reason}: {gap.detail}){between}{often}"
