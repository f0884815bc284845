"""What could go wrong: where there is no glibc the agent does not start; what glibc was asked for is not taken."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from agent.thrift import be_thrifty
from tests.servers.agent_process import ROOT, environment


def test_the_c_library_takes_it() -> None:
    code = "import agent.thrift; print(agent.thrift.be_thrifty())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, check=True)
    assert done.stdout.strip() == b"True"


class Other:
    """Another C library."""


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Other())
    assert be_thrifty() is False


def test_without_one_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError("static")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert be_thrifty() is False
