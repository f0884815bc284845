"""The words of the audit.

What could go wrong: a number of the equation is missing or stands in the wrong place; a complaint is shown to a script
and not to a person, or the other way round; the last line says the contrary of what was found.
"""

from __future__ import annotations

import json
from dataclasses import replace

import orjson
import pytest

from agent.audit import GAPS_SHOWN, as_json, lines
from storage.audit import Account, Audit
from storage.envelope import Gap, Losses, LossSum

FINE = Account(
    *("queries", 1_021, 1_000, 10, 5, 4, 2),
    possible_duplicates=0,
    counted_pending=10,
    counted_parked=5,
    damaged=0,
    is_intact=True,
)
LOST = Losses(
    (Gap("outbox", "damaged", estimate=2, detail="envelope 3 was damaged on the disk"),),
    (LossSum("outbox", "damaged", 1, 2, 0),),
)


def test_a_person_reads_an_equation_the_gaps_and_a_verdict() -> None:
    assert list(lines(Audit((FINE,), LOST))) == [
        "queries: captured 1,021 = delivered 1,000 + pending 10 + parked 5 + discarded 4 + lost 2",
        "gaps: 1",
        "  outbox: damaged, once, about 2",
        "the last 1 of them:",
        "  outbox: about 2 (damaged: envelope 3 was damaged on the disk)",
        "It balances.",
    ]


def test_nothing_balances() -> None:
    assert list(lines(Audit())) == ["gaps: 0", "It balances."]
    assert as_json(Audit()) == {
        "balances": True,
        "accounts": {},
        "losses": [],
        "gaps": [],
        "unnamed": 0,
        "damaged_gaps": 0,
    }


def test_possible_duplicates_are_told_only_where_there_are_some() -> None:
    found = list(lines(Audit((replace(FINE, possible_duplicates=1_500),), LOST)))
    assert found[1] == "  1,500 delivered records may be there twice if the backend ignores keys"
    assert len(found) == 7


@pytest.mark.parametrize(
    ("account", "complaint"),
    [
        (replace(FINE, captured=1_022), "captured 1,022, but 1,021 are accounted for"),
        (replace(FINE, counted_pending=9), "pending 10, but 9 are in the file"),
        (replace(FINE, counted_parked=6), "parked 5, but 6 are in the file"),
        (replace(FINE, is_intact=False), "the books are not what was written"),
    ],
)
def test_a_complaint_is_told_to_persons_and_to_scripts(account: Account, complaint: str) -> None:
    found = Audit((account,), LOST)
    assert list(lines(found))[1] == f"  WRONG: {complaint}"
    assert list(lines(found))[-1] == "It does not balance."
    told = json.loads(orjson.dumps(as_json(found)))
    assert (told["balances"], told["accounts"]["queries"]["complaints"]) == (False, [complaint])


def test_a_loss_without_a_name_is_told_to_persons_and_to_scripts() -> None:
    found = Audit((FINE,))
    assert list(lines(found))[-2:] == ["WRONG: 2 lost records are named by no gap", "It does not balance."]
    assert (as_json(found)["balances"], as_json(found)["unnamed"]) == (False, 2)


@pytest.mark.parametrize(
    ("gap", "sentence"),
    [
        (Gap("w", "rotated", "A", "B", 7, "d"), "  w: about 7 (rotated: d), A to B"),
        (Gap("w", "rotated", None, "B", None, "d"), "  w: an unknown number (rotated: d), ever to B"),
        (Gap("w", "rotated", "A", None, 1_234, "d"), "  w: about 1,234 (rotated: d), A to now"),
        (Gap("w", "rotated", "A", "B", 9, "d", 1_000), "  w: about 9 (rotated: d), A to B, 1,000 times"),
    ],
)
def test_a_gap_in_one_sentence(gap: Gap, sentence: str) -> None:
    assert list(lines(Audit((), Losses((gap,)))))[2] == sentence


def test_the_sums_and_the_newest_are_shown_to_a_person_and_all_there_is_to_a_script() -> None:
    newest = tuple(Gap("w", "rotated", estimate=number, at=1_700_000_000.0) for number in range(GAPS_SHOWN + 9))
    sums = (LossSum("w", "rotated", 2_000, 70, 1_500), LossSum("v", "reset", 3, 0, 3), LossSum("u", "reset", 1, 4, 0))
    found = Audit((), Losses(newest, sums))
    assert list(lines(found))[:5] == [
        "gaps: 2,004",
        "  w: rotated, 2,000 times, about 70 and an unknown number 1,500 times",
        "  v: reset, 3 times, an unknown number 3 times",
        "  u: reset, once, about 4",
        "the last 20 of them:",
    ]
    assert len(list(lines(found))) == 5 + GAPS_SHOWN + 1
    told = json.loads(orjson.dumps(as_json(found)))
    assert [gap["estimate"] for gap in told["gaps"]] == list(range(GAPS_SHOWN + 9))
    assert told["gaps"][0]["recorded_at"] == "2023-11-14T22:13:20+00:00"
    assert told["losses"][1] == {"source": "v", "reason": "reset", "times": 3, "estimate": 0, "unknown": 3}
