"""What the MySQL driver reports becomes one of our errors.

What could go wrong: a lost connection ends a look as a set-up error, or a set-up error leads to endless reconnecting;
the driver's own exceptions escape; a reason is lost.
"""

import socket
import struct

import pytest
from pymysql import err

from agent.source_errors import (
    DatabaseAway,
    LoginRefused,
    SetupError,
    SlowLogCrashed,
    SlowLogMissing,
    SlowLogNotGranted,
    SlowLogTooLarge,
    SourceError,
)
from agent.sources._mysql_session import explain, explained

CASES: dict[type[SourceError], list[int]] = {
    DatabaseAway: [0, 1040, 1053, 1077, 1152, 1158, 1159, 1160, 1161, 1317, 1927, 2002, 2003, 2005, 2006, 2013, 2055],
    LoginRefused: [1044, 1045, 1129, 1130, 1698, 1862, 4151],
    SlowLogNotGranted: [1142, 1143],
    SlowLogMissing: [1146],
    SlowLogCrashed: [126, 127, 144, 145, 1034, 1035, 1194, 1195],
    SetupError: [1064, 9999],
    SlowLogTooLarge: [1969, 3024],
}


@pytest.mark.parametrize(("expected", "code"), [(kind, code) for kind, codes in CASES.items() for code in codes])
def test_a_code_of_the_server_has_its_error(expected: type[SourceError], code: int) -> None:
    error = explain(err.OperationalError(code, "what it said"))
    assert type(error) is expected
    assert error.detail == (f"what it said ({code})" if code else "what it said")


def test_an_error_without_code_or_words_is_a_lost_connection() -> None:
    assert type(explain(err.InterfaceError())) is DatabaseAway
    assert explain(err.InterfaceError()).detail == "the connection was closed"
    assert explain(err.InterfaceError("gone")).detail == "gone"


@pytest.mark.parametrize(
    "raised",
    [
        socket.gaierror(-2, "unknown host"),
        TimeoutError("slow"),
        struct.error("short"),
        AttributeError("None"),
        IndexError(),
    ],
)
def test_what_else_the_driver_raises_is_a_lost_connection(raised: Exception) -> None:
    with pytest.raises(DatabaseAway), explained():
        raise raised


def test_what_is_no_failure_of_the_connection_goes_through() -> None:
    with pytest.raises(KeyboardInterrupt), explained():
        raise KeyboardInterrupt
