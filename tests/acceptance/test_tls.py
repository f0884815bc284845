"""A whole agent that speaks TLS, goes by a proxy, and finds everybody at addresses that change.

What could go wrong: a part of the agent does not use what the configuration says (the heartbeat does, the delivery does
not); a certificate that is not trusted loses records, or its renewal needs a restart; a password of the proxy shows in
the log; a missing file ends in a traceback; an agent that runs for years goes on looking at the address of last year.
"""

from __future__ import annotations

import os
import shutil
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.cli import UNUSABLE
from agent.dev.serve import RunningBackend
from agent.dev.server_process import wait_until
from tests.fakes.relay import ConnectProxy, Front
from tests.fakes.stub_backend import StubBackend
from tests.faults.recorder import CompilerMissing, build
from tests.servers.agent_process import AgentProcess, Json, run_agent, settings, write
from tests.servers.authority import Authorities
from tests.servers.mariadb import MariaDBServer, MariaDBTemplate
from tests.servers.postgres import WatchedPostgres
from tests.servers.tls import SlowLogTls

ARRIVE_S = 60.0
SECRET = "hunter2-hunter2"
LIBRARY = Path(__file__).parents[1] / "servers" / "moving_names.c"


def demanding(known: Authorities) -> ssl.SSLContext:
    """A backend with a certificate, that demands one of `theirs`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(known.good.cert, known.good.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(known.theirs.ca)
    return context


@pytest.fixture
def config(tmp_path: Path, authorities: Authorities, stub: StubBackend) -> Json:
    """Of an agent whose files stand beside its configuration, in `pki`."""
    place = tmp_path / "pki"
    place.mkdir()
    for source, name in (
        (authorities.ours.ca, "ca.pem"),
        (authorities.foreign.cert, "agent.pem"),
        (authorities.foreign.key, "agent.key"),
    ):
        shutil.copyfile(source, place / name)
    tls = {"ca": "pki/ca.pem", "cert": "pki/agent.pem", "key": "pki/agent.key"}
    return {**settings(stub, "mysql", {"host": "localhost", "user": "nobody"}), "tls": tls, "proxy": ""}


def arrived(stub: StubBackend, texts: list[str]) -> bool:
    return wait_until(
        lambda: [each["sql_text"] for each in stub.records if each["sql_text"] in texts] == texts, ARRIVE_S
    )


def test_everything_goes_by_tls_and_proxy_where_it_was_said(
    tmp_path: Path, config: Json, stub: StubBackend, authorities: Authorities, mariadb_template: MariaDBTemplate
) -> None:
    server = MariaDBServer(mariadb_template, long_query_time=10.0)
    SlowLogTls(server, authorities.good, authorities.theirs.ca)
    with server, Front(stub.port, demanding(authorities)) as front, ConnectProxy("agent", SECRET) as proxy:
        server.execute("SET GLOBAL require_secure_transport=ON")
        config["db_config"] |= server.monitor() | {"host": "localhost", "tls": {"ca": "pki/ca.pem"}}
        config |= {"backend_url": front.url, "proxy": f"http://agent:{SECRET}@localhost:{proxy.port}"}
        texts = server.slow(3)
        with AgentProcess(write(tmp_path, config)) as agent:
            assert arrived(stub, texts)
            assert stub.wait_for(lambda stub: len(stub.heartbeats) > 0, ARRIVE_S)
            assert agent.end() == 0
        assert proxy.carried >= 2, "delivery and heartbeat have each a connection"
        assert set(proxy.asked) == {f"localhost:{front.port}"}
        assert [each for each in agent.events() if each.get("level") in {"WARNING", "ERROR"}] == []
        written = agent.said() + "".join(map(str, stub.heartbeats))
        assert (SECRET in written, server.monitor()["password"] in written) == (False, False)


def test_an_untrusted_backend_loses_nothing_and_needs_no_restart_when_it_is_trusted(
    tmp_path: Path, config: Json, stub: StubBackend, authorities: Authorities, clean_mariadb: MariaDBServer
) -> None:
    config["db_config"] |= clean_mariadb.monitor()
    with Front(stub.port, demanding(authorities)) as front:
        config["backend_url"] = front.url
        ca = tmp_path / "pki/ca.pem"
        shutil.copyfile(authorities.theirs.ca, ca)
        texts = clean_mariadb.slow(3)
        with AgentProcess(write(tmp_path, config)) as agent:
            assert agent.heard("delivery.wrong", "BE-06")
            assert agent.heard("heartbeat.wrong", "BE-06")
            assert stub.requests == 0
            shutil.copyfile(authorities.ours.ca, ca)
            assert arrived(stub, texts)
            assert agent.heard("delivery.right")


@pytest.mark.parametrize(
    ("url", "tls", "event"),
    [
        ("http://backend.invalid:1", {}, "backend.plain"),
        ("https://backend.invalid:1", {"verify": False}, "backend.unverified"),
        ("https://backend.invalid:1", {}, None),
        ("http://127.0.0.1:1", {}, None),
    ],
)
def test_a_way_that_others_can_read_or_change_is_told_once_at_the_start(
    tmp_path: Path, config: Json, url: str, tls: Json, event: str | None
) -> None:
    config |= {"backend_url": url, "tls": tls}
    with AgentProcess(write(tmp_path, config)) as agent:
        assert agent.heard("heartbeat.wrong")
        assert agent.end() == 0
    told = [(each["event"], each["level"]) for each in agent.events() if each.get("event", "").startswith("backend.")]
    assert told == ([] if event is None else [(event, "WARNING")])


def test_a_missing_file_ends_the_start_with_a_sentence(tmp_path: Path, config: Json) -> None:
    (tmp_path / "pki/agent.key").unlink()
    for word in ("run", "once"):
        ran = run_agent(word, "--config", write(tmp_path, config))
        assert ran.returncode == UNUSABLE
        assert ran.stderr.startswith(
            "[CF-01] The configuration cannot be used: tls.key: the file cannot be read (No such"
        )
        assert ran.stderr.count("\n") == 1


# -- addresses ---------------------------------------------------------------------------------------------------------


def several(mariadb: Json, postgres: Json, **more: Any) -> Json:
    """The settings of an agent with these two databases."""
    quick = {"connect_timeout": 5, "read_timeout": 10, "max_load": 0, "min_exec_time_ms": 0}
    return {
        "databases": [
            {"name": "orders", "db_type": "mysql", "db_config": {**mariadb, **quick}},
            {"name": "billing", "db_type": "postgres", "db_config": {**postgres, **quick}},
        ],
        "heartbeat_interval": 0.3,
        "collection_interval": 0.3,
        "proxy": "",
        **more,
    }


@pytest.fixture
def backend_at_ipv6() -> Iterator[RunningBackend]:
    try:
        backend = RunningBackend(host="::1")
    except OSError as missing:
        pytest.skip(f"this machine has no IPv6: {missing}")
    with backend:
        yield backend


def test_backend_and_databases_may_be_at_addresses_of_ipv6(
    tmp_path: Path, backend_at_ipv6: RunningBackend, mariadb_template: MariaDBTemplate, postgres18: WatchedPostgres
) -> None:
    options = ["--bind-address=127.0.0.1,::1"]
    listening = {"listen_addresses": "127.0.0.1,::1"}
    with (
        MariaDBServer(mariadb_template, long_query_time=10.0, options=options) as orders,
        WatchedPostgres(postgres18.bin_dir, settings=listening) as billing,
    ):
        texts = orders.slow(2)
        own = backend_at_ipv6.registry.register("here")
        who = {"collector_id": own.id, "api_key": own.api_key, "backend_url": backend_at_ipv6.url}
        here = several(orders.monitor() | {"host": "::1"}, billing.monitor() | {"host": "[::1]"}, **who)
        path = write(tmp_path, here)
        assert run_agent("once", "--config", path).returncode == 0  # PostgreSQL's first look is the baseline
        billing.slow_workload("ipv6")
        ran = run_agent("once", "--config", path)
        assert (ran.returncode, ran.stderr) == (0, "")
        arrived_there = [each["sql_text"] for each in backend_at_ipv6.store.records()]
    assert [each for each in arrived_there if each in texts] == texts
    assert any(each.startswith("WITH ipv6 AS ") for each in arrived_there)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    try:
        return build(tmp_path, LIBRARY)
    except CompilerMissing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have a compiler: {missing}", pytrace=False)
        pytest.skip(str(missing))


class Moving:
    """Three names, and two addresses at which each of them can be."""

    def __init__(self, path: Path, stack: ExitStack, **ports: int) -> None:
        self._path = path
        self.old = {name: stack.enter_context(Front(port, at=("127.0.0.2", 0))) for name, port in ports.items()}
        self.new = {
            name: stack.enter_context(Front(port, at=("127.0.0.3", self.old[name].port)))
            for name, port in ports.items()
        }
        self.point_to("127.0.0.2")

    def point_to(self, address: str) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text("".join(f"{name}.test {address}\n" for name in self.old))
        fresh.replace(self._path)

    def port(self, name: str) -> int:
        return self.old[name].port

    def carried(self) -> tuple[list[bool], list[bool]]:
        """Whether somebody came, at the old and at the new address of each."""
        return [each.carried > 0 for each in self.old.values()], [each.carried > 0 for each in self.new.values()]


def test_whoever_has_moved_is_found_at_the_new_address_without_a_restart(
    tmp_path: Path, library: Path, stub: StubBackend, clean_mariadb: MariaDBServer, postgres18: WatchedPostgres
) -> None:
    ports = {"backend": stub.port, "orders": clean_mariadb.port, "billing": postgres18.port}
    with ExitStack() as stack:
        moving = Moving(tmp_path / "names", stack, **ports)
        orders = clean_mariadb.monitor() | {"host": "orders.test", "port": moving.port("orders")}
        billing = postgres18.monitor() | {"host": "billing.test", "port": moving.port("billing")}
        who = {"collector_id": stub.collector_id, "api_key": stub.api_key}
        config = several(orders, billing, **who, backend_url=f"http://backend.test:{moving.port('backend')}")
        variables = {"LD_PRELOAD": str(library), "MOVING_NAMES": str(tmp_path / "names")}
        with AgentProcess(write(tmp_path / "agent", config), variables=variables):
            assert arrived(stub, clean_mariadb.slow(1))
            assert came(stub, postgres18, "before")
            assert moving.carried() == ([True] * 3, [False] * 3)
            moving.point_to("127.0.0.3")
            for front in moving.old.values():
                front.close()
            assert arrived(stub, clean_mariadb.slow(1, first=1))
            assert came(stub, postgres18, "after")
            assert moving.carried()[1] == [True] * 3


def came(stub: StubBackend, server: WatchedPostgres, name: str) -> bool:
    """Calls the statement until it has been told: a call before the first look is a part of its baseline."""

    def holds() -> bool:
        server.slow_workload(name)
        return any(each["sql_text"].startswith(f"WITH {name} AS ") for each in stub.records)

    return wait_until(holds, ARRIVE_S)
