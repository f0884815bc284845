"""Asks a person for what a configuration needs, one value after the other, each checked before the next one."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from agent.config import complaints, environment
from agent.config.layers import assemble
from agent.config.places import Tree, find, path_of, put
from agent.config.schema import Config
from agent.errors import ConfigError

# A configuration in which nothing is wrong: one value of it is replaced, and what is complained of then is that value.
_FINE: Tree = {
    "collector_id": 1,
    "api_key": "k",
    "backend_url": "http://localhost",
    "db_type": "mysql",
    "db_config": {"host": "localhost", "user": "u"},
}
_OF_THE_WAY = ("backend_url", "tls", "proxy")
_AS_IT_IS = " (Enter: as it is)"
_NUMBERS = frozenset({"collector_id", "db_config.port"})


class Interview:
    """`tree`: what is known, and becomes the file. What the environment says is neither asked nor written.

    `asks`: whether a person is there; else what is missing is noted in `missing`, as dotted paths. Raises ConfigError
    when the environment is wrong.
    """

    def __init__(self, tree: Tree, environ: Mapping[str, str], *, asks: bool) -> None:
        self.tree, self.asks, self.missing = tree, asks, list[str]()
        self._environ = environ
        self._above: Tree = {}
        self._outside = set[str]()
        known, wrong = environment.variables(tree), list[str]()
        for place, text in environment.said(known, environ, wrong):
            put(self._above, place, text)
            self._outside.add(".".join(place))
        if wrong := [*wrong, *environment.misspelt(known, environ)]:
            raise ConfigError("; ".join(wrong))

    def value(self, dotted: str) -> Any:
        """What holds there now; None when nothing does."""
        told = find(self._above, path_of(dotted))
        own = find(self.tree, path_of(dotted))
        return environment.filled_in(own, self._environ, []) if told is None else told

    @property
    def outside(self) -> list[str]:
        """What the environment says, as dotted paths."""
        return sorted(self._outside)

    def is_from_outside(self, dotted: str) -> bool:
        """Whether the environment says it."""
        return dotted in self._outside

    def put(self, dotted: str, value: object) -> None:
        """Has the file say that, whatever stands in it."""
        put(self.tree, path_of(dotted), environment.literal(value) if isinstance(value, str) else value)

    def way(self, path: Path, environ: Mapping[str, str]) -> Config:
        """How the backend is reached, as far as it is known; with stand-ins for all that does not matter for that.

        Raises ConfigError.
        """
        known = {key: self.tree[key] for key in _OF_THE_WAY if key in self.tree}
        return assemble({**deepcopy(_FINE), **known}, path, environ, {})[0]

    def want(
        self,
        dotted: str,
        question: str,
        *,
        usual: object = None,
        hidden: bool = False,
        may_be_empty: bool = False,
        given: object = None,
    ) -> Any:
        """The value that holds there from now on.

        `given`: was said on the command line, and is not asked for; `usual`: is offered when nothing is known yet;
        `may_be_empty`: a person may say that there is none.
        Raises click.BadParameter when it cannot be used.
        """
        if given is not None:
            self.put(dotted, _checked(dotted, given))
        elif find(self._above, path_of(dotted)) is None:
            known = find(self.tree, path_of(dotted))
            if self.asks:
                self._ask(dotted, question, known, "" if may_be_empty else usual, hidden=hidden)
            elif known is None:
                self._settle(dotted, usual)
        return self.value(dotted)

    def _ask(self, dotted: str, question: str, known: object, usual: object, *, hidden: bool) -> None:
        enter = "" if not hidden or known is usual is None else " (Enter: none)" if known is None else _AS_IT_IS
        answer = prompt(
            f"{question}{enter}",
            default=usual if known is None else known,
            hide_input=hidden,
            show_default=not hidden,
            value_proc=lambda typed: known if typed == known and _is_filled_in(known) else _checked(dotted, typed),
        )
        if answer != known:
            self.put(dotted, answer)

    def _settle(self, dotted: str, usual: object) -> None:
        if usual is None:
            self.missing.append(dotted)
        else:
            self.put(dotted, usual)


def prompt(text: str, **options: Any) -> Any:
    """As click asks, but for bytes that are no letters."""
    while True:
        try:
            return click.prompt(text, **options)
        except UnicodeDecodeError:
            click.echo("Error: That is no UTF-8.", err=True)


def _is_filled_in(known: object) -> bool:
    return isinstance(known, str) and "${" in known


def _checked(dotted: str, value: object) -> object:
    tree = deepcopy(_FINE)
    put(tree, path_of(dotted), value)
    try:
        Config.model_validate(tree)
    except ValidationError as error:
        raise click.BadParameter("; ".join(complaints.sentences(error, Config, tree))) from None
    return int(str(value)) if dotted in _NUMBERS else value
