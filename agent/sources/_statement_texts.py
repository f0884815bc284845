"""Reads the texts of statements, for what is sent only. One that cannot be decoded costs itself.

The server converts every text into the encoding of the database that asks, in one go: a single one that is not valid
there (a SQL_ASCII database takes any byte) makes it refuse all, whatever is selected. From a database with the encoding
SQL_ASCII it gives them as they are; so then they are read there and decoded here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import cast

from psycopg2.extensions import encodings

from agent.clock import Clock
from agent.news import News
from agent.source_errors import SetupError, SourceError, TextsUndecodable
from agent.sources import SourceSettings
from agent.sources._postgres_session import ANSWER_BYTES, MARKER, Row, Session
from agent.sources._statement_counters import KEY_LENGTH, Delta, Key
from agent.sources._statement_queries import Link, shape_of
from agent.sources._statement_records import Text, Texts
from agent.sources._understood import understood

_TEXTS = f"""
    SELECT {MARKER} userid, dbid, queryid, {{toplevel}}, left(query, %s),
        CASE WHEN octet_length(convert_to(query, 'UTF8')) > %s THEN encode(sha256(convert_to(query, 'UTF8')), 'hex') END
    FROM {{schema}}.pg_stat_statements(true) WHERE queryid = ANY (%s)
"""
_BYTES = f"""
    SELECT {MARKER} userid, s.dbid, queryid, pg_encoding_to_char(d.encoding), convert_to(query, 'SQL_ASCII')
    FROM {{schema}}.pg_stat_statements(true) s LEFT JOIN pg_database d ON d.oid = s.dbid WHERE queryid = ANY (%s)
"""
_DATABASES_OF_BYTES = f"""
    SELECT {MARKER} datname FROM pg_database
    WHERE encoding = pg_char_to_encoding('SQL_ASCII') AND datallowconn AND has_database_privilege(oid, 'CONNECT')
    ORDER BY datname LIMIT 3
"""

_TEXT_TYPES = (26, 26, 20, 16, 25, 25)  # oid, oid, bigint, boolean, text, text
_TEXTS_BYTES, _SIGN_BYTES = 32 * 1_048_576, 4
EVICTED, NOT_GRANTED = "evicted", "insufficient privilege"
UNDECODABLE, BESIDE_ONE = "undecodable", "another one is undecodable"
NOT_STORED = "lost by the server"  # its file of texts was damaged or could not be rewritten


class TextReader:
    """Reads texts over the link of a source; beside it, when it has to, over a short-lived connection of its own."""

    def __init__(
        self, settings: SourceSettings, clock: Clock, connect: Callable[[SourceSettings, Clock], Session]
    ) -> None:
        self._settings, self._clock, self._connect = settings, clock, connect
        self._limit = settings.db.max_sql_text_bytes
        self._news = News("texts", clock, watch=settings.watch)

    def read(self, link: Link, deltas: Sequence[Delta]) -> Texts:
        """The texts of these statements. Raises DatabaseAway."""
        queryids = list({delta.key[2] for delta in deltas})
        try:
            rows = [row for some in self._at_once(queryids) for row in self._rows(link, some)]
        except TextsUndecodable as error:
            return self._elsewhere(link, queryids, error)
        except SetupError as error:
            return Texts({}, error.detail[:100] or error.sentence)
        self._news.right()
        with understood():
            found = {cast("Key", row[:KEY_LENGTH]): self._text(row[4], row[5]) for row in rows}
        is_whole = all(delta.key in found for delta in deltas)
        return Texts(found, EVICTED if is_whole or link.is_granted() else NOT_GRANTED)

    def _at_once(self, queryids: list[int]) -> Iterator[list[int]]:
        """So many at once that the longest texts there may be find room in memory."""
        many = max(1, _TEXTS_BYTES // self._limit)
        return (queryids[start : start + many] for start in range(0, len(queryids), many))

    def _rows(self, link: Link, queryids: list[int]) -> list[Row]:
        at_most_bytes = ANSWER_BYTES + len(queryids) * _SIGN_BYTES * self._limit
        sql = link.shape.fill(_TEXTS)
        values = (self._limit, self._limit, queryids)
        return link.session.rows(sql, values, at_most_bytes=at_most_bytes, types=_TEXT_TYPES)

    def _text(self, text: str | None, digest: str | None) -> Text:
        return Text(missing=NOT_STORED) if text is None else Text(_cut(text, self._limit), digest)

    def _elsewhere(self, link: Link, queryids: list[int], error: TextsUndecodable) -> Texts:
        for session in self._sessions_of_bytes(link):
            try:
                rows = session.rows(shape_of(session).fill(_BYTES), (queryids,))
            except SourceError:  # the extension is not there, or is of no use there
                continue
            finally:
                session.drop()
            self._news.right()
            with understood():
                return Texts(dict(self._decoded(rows)), EVICTED)
        self._news.wrong(error)
        return Texts({}, BESIDE_ONE)

    def _sessions_of_bytes(self, link: Link) -> Iterator[Session]:
        try:
            names = [name for (name,) in link.session.rows(_DATABASES_OF_BYTES)]
        except SetupError:  # a name that is not valid in its encoding
            return
        for name in names:
            db = self._settings.db.model_copy(update={"database": name})
            try:
                yield self._connect(replace(self._settings, db=db), self._clock)
            except SourceError:
                continue

    def _decoded(self, rows: Sequence[Row]) -> Iterator[tuple[Key, Text]]:
        for userid, dbid, queryid, encoding, content in rows:
            text = self._decode(None if content is None else bytes(content), encoding)
            for is_toplevel in (True, False):  # the extension there may be older and not tell
                yield (userid, dbid, queryid, is_toplevel), text

    def _decode(self, content: bytes | None, encoding: str | None) -> Text:
        if content is None:
            return Text(missing=NOT_STORED)
        # A database that takes any byte, or that is dropped, mostly has UTF-8 all the same.
        codec = encodings.get(encoding or "", "utf_8") if encoding != "SQL_ASCII" else "utf_8"
        try:
            text = content.decode(codec)
        except UnicodeDecodeError:
            return Text(missing=UNDECODABLE)
        whole = text.encode()
        return Text(_cut(text, self._limit), sha256(whole).hexdigest() if len(whole) > self._limit else None)


def _cut(text: str, limit_bytes: int) -> str:
    return text if len(text) * 4 <= limit_bytes else text.encode()[:limit_bytes].decode("utf-8", "ignore")
