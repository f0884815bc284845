"""The states of a watch and the ways between them. Nothing else: no input, no output, no time."""

from __future__ import annotations

from typing import Protocol

from transitions import Machine

IDLE, COLLECTING, PAUSED, RECONNECTING = STATES = ("idle", "collecting", "paused", "reconnecting")
_CONNECTED = [IDLE, COLLECTING, RECONNECTING]

# Of two rows with the same trigger and source the first whose condition holds is taken.
TRANSITIONS: tuple[dict[str, str | list[str]], ...] = (
    {"trigger": "begin", "source": [IDLE, RECONNECTING], "dest": COLLECTING},
    {"trigger": "begin", "source": PAUSED, "dest": COLLECTING, "conditions": "collect_wanted"},
    {"trigger": "finish", "source": COLLECTING, "dest": PAUSED, "conditions": "pause_wanted"},
    {"trigger": "finish", "source": COLLECTING, "dest": IDLE},
    {"trigger": "lose_connection", "source": _CONNECTED, "dest": PAUSED, "conditions": "pause_wanted"},
    {"trigger": "lose_connection", "source": _CONNECTED, "dest": RECONNECTING},
    {"trigger": "pause", "source": [IDLE, RECONNECTING], "dest": PAUSED},
    {"trigger": "resume", "source": PAUSED, "dest": IDLE},
)


class Model(Protocol):
    """What the machine drives: its triggers are declared, so that a forgotten one is found by the type checker."""

    state: str

    def begin(self) -> bool: ...
    def finish(self) -> bool: ...
    def lose_connection(self) -> bool: ...
    def pause(self) -> bool: ...
    def resume(self) -> bool: ...
    def is_collecting(self) -> bool: ...
    def collect_wanted(self) -> bool: ...
    def pause_wanted(self) -> bool: ...
    def entered(self) -> None: ...


def attach(model: Model, initial: str) -> Machine:
    """Binds the triggers to `model` and puts it into `initial`. One thread may drive it."""
    return Machine(
        model=model,
        states=list(STATES),
        transitions=[dict(row) for row in TRANSITIONS],
        initial=initial,
        auto_transitions=False,
        model_override=True,  # only the declared triggers are bound
        queued=False,
        after_state_change="entered",
    )
