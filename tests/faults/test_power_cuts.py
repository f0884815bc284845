"""A power cut at any instant loses nothing: what was acknowledged is there, what was not is there wholly or not at all.

What could go wrong: a commit returns before the disk has it; a record is there without its bookmark or the other way
round; a start after a cut fails, loses something itself, or is cut and then fails; an outbox that is being made or
brought to a new format is neither old nor new; something that was never synced is sent, and then forgotten.
Each image comes from a real recording (tests/faults/recorder.c) and the model of a disk in tests/faults/disk.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from storage.outbox import FILE_NAME
from storage.schema import VERSION
from tests.faults.disk import FATES
from tests.faults.old_format import FORMATS, outbox_of_format, version
from tests.faults.power_cuts import (
    FAULTS,
    RESTART,
    Cut,
    Laboratory,
    Outcome,
    Recording,
    develop,
    plan,
    put,
    start,
    torture,
)
from tests.faults.recorded_program import CUT_SHORT
from tests.faults.recorder import Event

SEED = 20_240_229
IMAGES, STARTS, CUTS_OF_EACH_START, CONTROL_IMAGES, UNSURE_IMAGES = 2_000, 10, 20, 120, 300


def demand_fine(outcome: Outcome, images: int) -> None:
    assert outcome.counts["images"] >= images
    assert outcome.faults == 0, "\n".join([str(outcome.counts), *outcome.complaints])


@pytest.mark.timeout(900)
def test_a_power_cut_at_any_instant_loses_nothing(bench: Laboratory, life: Recording) -> None:
    demand_fine(bench.examine(life, plan(life.events, IMAGES, Random(SEED)), SEED), IMAGES)


def test_a_power_cut_while_the_outbox_starts_after_a_power_cut_loses_nothing(
    bench: Laboratory, life: Recording
) -> None:
    cuts = plan(life.events, STARTS, Random(SEED))
    demand_fine(bench.cut_recoveries(life, cuts, SEED, CUTS_OF_EACH_START), STARTS * CUTS_OF_EACH_START)


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize("earlier", FORMATS)
def test_a_power_cut_while_an_outbox_of_an_earlier_format_is_opened_loses_nothing(
    bench: Laboratory, place: Path, earlier: int, is_closed: bool
) -> None:
    base, look = outbox_of_format(earlier, is_closed=is_closed)
    put(place / "data", base)
    assert version(place / "data") == earlier
    upgrade = bench.record(RESTART, base=base, before=look)
    *_, (_, image, _) = develop(upgrade, [Cut(len(upgrade.events), FATES[0])], SEED)
    put(place / "data", image)
    assert version(place / "data") == VERSION
    demand_fine(bench.examine(upgrade, plan(upgrade.events, 120, Random(SEED)), SEED), 120)


# -- what one start has seen, another process may have sent ----------------------------------------------------------


def after_the_crash(life: Recording) -> tuple[int, int]:
    """From where to where the start reaches that finds a commit which nobody synced or acknowledged."""
    acks = [at for at, event in enumerate(life.events) if event.operation == "ack"]
    promises = [json.loads(life.events[at].data) for at in acks]
    number = next(n for n, promise in enumerate(promises) if len(promise.get("captured", [])) == CUT_SHORT)
    return acks[number - 1] + 1, acks[number] + 1


def just_after(events: Sequence[Event], begin: int) -> list[Cut]:
    """Cuts at the acknowledgement before `begin` and until something is synced again."""
    end = next(at for at in range(begin, len(events)) if events[at].operation == "sync")
    return [Cut(after, fate) for after in range(begin, end) for fate in FATES]


def test_what_a_start_finds_unsynced_is_there_from_then_on(bench: Laboratory, life: Recording) -> None:
    begin, end = after_the_crash(life)
    assert any(event.operation == "write" for event in life.events[begin:end]), "the commit that was cut short"
    cuts = just_after(life.events, end)
    demand_fine(bench.examine(life, cuts, SEED), len(cuts))


def test_it_would_be_lost_if_the_start_did_not_sync_it(bench: Laboratory, life: Recording) -> None:
    begin, end = after_the_crash(life)
    start_only = [event for event in life.events[begin:end] if event.operation != "sync"]
    careless = replace(life, events=[*life.events[:begin], *start_only, *life.events[end:]])
    outcome = bench.examine(careless, just_after(careless.events, begin + len(start_only)), SEED)
    assert outcome.counts["lost"] > 0


def test_what_a_start_finds_after_a_sync_that_failed_is_there_from_then_on(bench: Laboratory) -> None:
    misled = bench.record(["misled", *RESTART])
    assert "unsynced" in [event.operation for event in misled.events]
    acks = [at for at, event in enumerate(misled.events) if event.operation == "ack"]
    cuts = [Cut(after, fate) for after in (acks[2] + 1, acks[3] + 1, acks[3] + 3) for fate in FATES]
    demand_fine(bench.examine(misled, cuts, SEED), len(cuts))


def test_after_syncs_that_failed_whatever_was_acknowledged_is_there(bench: Laboratory) -> None:
    unsure = bench.record(["unsure", *RESTART])
    failed = [event.name for event in unsure.events if event.operation == "unsynced"]
    assert {*failed} == {FILE_NAME, f"{FILE_NAME}-wal"}, "of a commit and of a checkpoint"
    assert len(failed) > len({*failed})
    outcome = bench.examine(unsure, plan(unsure.events, UNSURE_IMAGES, Random(SEED)), SEED)
    demand_fine(outcome, UNSURE_IMAGES)


# -- controls --------------------------------------------------------------------------------------------------------


def weakened(bench: Laboratory, synchronous: str) -> Outcome:
    weak = bench.record(synchronous=synchronous)
    return bench.examine(weak, plan(weak.events, CONTROL_IMAGES, Random(SEED)), SEED)


def test_with_synchronous_normal_acknowledged_records_are_lost(bench: Laboratory) -> None:
    outcome = weakened(bench, "NORMAL")
    assert outcome.counts["lost"] > 0
    assert f"seed {SEED}" in outcome.complaints[0]


def test_with_synchronous_off_records_are_lost_or_the_file_is_damaged(bench: Laboratory) -> None:
    outcome = weakened(bench, "OFF")
    assert outcome.counts["lost"] > 0
    assert outcome.counts["failed_starts"] + outcome.counts["torn"] > 0


def test_without_the_sync_of_one_commit_that_commit_is_lost(bench: Laboratory, life: Recording) -> None:
    acks = [at for at, event in enumerate(life.events) if event.operation == "ack"]
    syncs = [
        at for at, event in enumerate(life.events) if event.operation == "sync" and event.name.startswith(FILE_NAME)
    ]
    dropped = max(at for at in syncs if at < acks[1])
    careless = replace(life, events=[*life.events[:dropped], *life.events[dropped + 1 :]])
    outcome = bench.examine(careless, [Cut(acks[1], fate) for fate in FATES], SEED)
    assert outcome.counts["lost"] > 0


def test_records_and_bookmark_in_two_transactions_are_found_apart(bench: Laboratory) -> None:
    careless = bench.record(["careless"])
    outcome = bench.examine(careless, plan(careless.events, CONTROL_IMAGES, Random(SEED)), SEED)
    assert outcome.counts == {**dict.fromkeys(FAULTS, 0), "images": CONTROL_IMAGES, "torn": outcome.counts["torn"]}
    assert outcome.counts["torn"] > 0


def test_a_disk_that_lost_what_was_synced_is_noticed(life: Recording, place: Path) -> None:
    ((_, image, acknowledged),) = develop(life, [Cut(len(life.events), FATES[1])], SEED)
    directory = place / "data"
    put(directory, image)
    assert start(directory, *life.around(acknowledged)) == ("fine", "")
    put(directory, {})
    assert start(directory, *life.around(acknowledged))[0] == "lost"


# -- the long version ------------------------------------------------------------------------------------------------


def test_the_long_version_counts_what_it_examines(recorder_library: Path) -> None:
    told: list[int] = []
    counts = torture(60, SEED, told.append)
    assert counts == {"images": counts["images"], **dict.fromkeys(FAULTS, 0)}
    assert counts["images"] >= 60
    assert told == list(range(1, counts["images"] + 1))
