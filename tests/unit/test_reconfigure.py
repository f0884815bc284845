"""What could go wrong: a change is kept although the database refuses it, half of a change is kept, the old source is
closed or replaced by a failed one, a stored file that was damaged kills the watch, a secret reaches the answer, the
backend weakens the redaction; one that is tried when another configuration takes over is kept after all; with several
databases: a change reaches another one, one that is tried holds up the
others, of two at once one is forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.config import remote
from agent.config.layers import Layers
from agent.config.schema import DEFAULT, Config
from agent.errors import CommandRefused
from agent.reconfigure import Reconfiguration
from agent.source_errors import LoginRefused
from tests.fakes.manual import config_tree, several_tree
from tests.fakes.source import FakeSource

SECRET = "hunter2-is-secret"


class TriedSource(FakeSource):
    """`meanwhile` happens while it is tried."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def check(self) -> None:
        """As the fake, and not alone."""
        self._meanwhile()
        super().check()


class Bench:
    def __init__(self, directory: Path, *names: str, **tree: Any) -> None:
        self.layers = Layers(several_tree(*names, **tree) if names else config_tree(**tree), {}, directory)
        self.while_tried: Callable[[str], object] = lambda _: None
        self.sources: list[FakeSource] = []
        self.asked: list[Config] = []
        self.told: list[Config] = []
        self.refuses = False
        self.reconfiguration = Reconfiguration(self.layers.build({}), self.layers, self._make, self.told.append)

    def _make(self, config: Config, name: str) -> FakeSource:
        source = TriedSource(lambda: self.while_tried(name))
        source.refusal = LoginRefused(f"user {config.watch(name).db_config.user}") if self.refuses else None
        self.asked.append(config)
        self.sources.append(source)
        return source

    @property
    def stored(self) -> dict[str, object]:
        return remote.overlay(self.layers.data_dir, self.layers.file, "any")


def test_a_change_of_the_database_is_tried_kept_and_gives_a_new_source(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    source = bench.reconfiguration.accept(DEFAULT, {"db_config": {"host": "other", "password": SECRET}})
    assert (source, bench.sources[0].checks, bench.sources[0].closes) == (bench.sources[0], 1, 0)
    assert bench.reconfiguration.config.watch(DEFAULT).db_config.host == "other"
    assert bench.stored == {"db_config.host": "other", "db_config.password": SECRET}


def test_a_change_of_an_interval_leaves_the_source_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.reconfiguration.accept(DEFAULT, {"collection_interval": 15}) is None
    assert (bench.sources, bench.reconfiguration.config.collection_interval) == ([], 15)


def test_what_the_database_refuses_is_not_kept_and_names_no_secret(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.refuses = True
    before = bench.reconfiguration.config
    with pytest.raises(CommandRefused) as refused:
        bench.reconfiguration.accept(DEFAULT, {"db_config": {"password": SECRET}})
    assert (bench.reconfiguration.config, bench.stored, bench.sources[0].closes) == (before, {}, 1)
    assert "DB-03" in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "params",
    [{}, {"collection_interval": 0}, {"db_config": {"port": "x", "host": "h", "password": SECRET}}, {"db_config": 5}],
)
def test_what_makes_no_valid_configuration_is_refused_untried(tmp_path: Path, params: dict[str, object]) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(CommandRefused) as refused:
        bench.reconfiguration.accept(DEFAULT, params)
    assert (bench.sources, bench.stored, SECRET in str(refused.value)) == ([], {}, False)


@pytest.mark.parametrize("mode", ["safe", "any"])
@pytest.mark.parametrize(
    "params",
    [{"redact": "secrets"}, {"redact": "secrets", "heartbeat_interval": 5}, {"db_config": {"redact": "secrets"}}],
)
def test_the_backend_cannot_have_more_of_the_texts(tmp_path: Path, params: dict[str, object], mode: str) -> None:
    bench = Bench(tmp_path, redact="fingerprint", remote_config=mode)
    with pytest.raises(CommandRefused, match="redact"):
        bench.reconfiguration.accept(DEFAULT, params)
    assert (bench.sources, bench.stored, bench.reconfiguration.config.redact) == ([], {}, "fingerprint")


def test_a_source_that_is_made_for_a_change_redacts_as_before(tmp_path: Path) -> None:
    bench = Bench(tmp_path, redact="literals", remote_config="any")
    bench.reconfiguration.accept(DEFAULT, {"db_config": {"max_sql_text_bytes": 2_000}})
    assert [config.redact for config in bench.asked] == ["literals"]


def test_switched_off_it_refuses_everything(tmp_path: Path) -> None:
    bench = Bench(tmp_path, remote_config="off")
    with pytest.raises(CommandRefused, match="off"):
        bench.reconfiguration.accept(DEFAULT, {"collection_interval": 15})


def test_a_change_that_cannot_be_stored_is_not_in_force(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "missing")
    before = bench.reconfiguration.config
    with pytest.raises(CommandRefused, match="stored"):
        bench.reconfiguration.accept(DEFAULT, {"db_config": {"password": SECRET}})
    assert (bench.reconfiguration.config, bench.sources[0].closes) == (before, 1)


def test_a_damaged_file_of_earlier_changes_is_a_refusal_and_no_defect(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (tmp_path / remote.FILE_NAME).write_text("{broken")
    with pytest.raises(CommandRefused, match=remote.FILE_NAME):
        bench.reconfiguration.accept(DEFAULT, {"collection_interval": 15})


def test_the_same_change_again_is_accepted_and_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    params = {"db_config": {"password": SECRET}}
    assert bench.reconfiguration.accept(DEFAULT, params) is not None
    assert bench.reconfiguration.accept(DEFAULT, params) is None


def test_a_later_change_is_laid_over_an_earlier_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.reconfiguration.accept(DEFAULT, {"collection_interval": 15})
    bench.reconfiguration.accept(DEFAULT, {"heartbeat_interval": 6})
    config = bench.reconfiguration.config
    assert (config.collection_interval, config.heartbeat_interval) == (15, 6)


# -- several databases ---------------------------------------------------------------------------------------------

NAMES = ("orders", "billing")


def change(host: str) -> dict[str, object]:
    return {"db_config": {"host": host, "password": SECRET}}


def test_a_change_concerns_its_database_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path, *NAMES)
    source = bench.reconfiguration.accept("billing", {**change("other"), "target": "billing"})
    assert (source, bench.asked[0].watch("orders")) == (bench.sources[0], bench.layers.build({}).watch("orders"))
    config = bench.reconfiguration.config
    assert [each.db_config.host for each in config.watches] == ["orders.example", "other"]
    assert bench.stored == {"databases.billing.db_config.host": "other", "databases.billing.db_config.password": SECRET}
    assert bench.told == [config]


def test_without_a_target_no_database_is_changed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, *NAMES)
    with pytest.raises(CommandRefused, match="db_config needs a target, one of orders, billing") as refused:
        bench.reconfiguration.accept("orders", change("other"))
    assert (bench.sources, bench.stored, SECRET in str(refused.value)) == ([], {}, False)


def test_an_interval_is_that_of_the_watch_and_the_heartbeats_is_the_agents(tmp_path: Path) -> None:
    bench = Bench(tmp_path, *NAMES)
    bench.reconfiguration.accept("orders", {"collection_interval": 15, "heartbeat_interval": 6})
    config = bench.reconfiguration.config
    assert (config.heartbeat_interval, [each.collection_interval for each in config.watches]) == (6, [15, 300])
    assert bench.sources == []


def test_while_one_database_is_tried_another_one_is_changed_and_both_changes_stay(tmp_path: Path) -> None:
    bench = Bench(tmp_path, *NAMES)
    failed = list[bool]()

    def meanwhile(name: str) -> None:
        if name == "orders":
            bench.while_tried = lambda _: None
            # In another thread, as it is; it has to come to its end while this one still tries.
            other = threading.Thread(
                target=bench.reconfiguration.accept,
                args=("billing", {**change("b"), "target": "billing", "heartbeat_interval": 9}),
                daemon=True,
            )
            other.start()
            other.join(20)
            failed.append(other.is_alive())

    bench.while_tried = meanwhile
    bench.reconfiguration.accept("orders", {**change("o"), "target": "orders"})
    config = bench.reconfiguration.config
    assert (failed, len(bench.sources)) == ([False], 2)
    assert ([each.db_config.host for each in config.watches], config.heartbeat_interval) == (["o", "b"], 9)
    assert bench.layers.build(bench.stored) == config
    assert [each.watch("orders").db_config.host for each in bench.told] == ["orders.example", "o"]


def test_what_somebody_else_wrote_while_it_was_tried_is_not_kept_untried(tmp_path: Path) -> None:
    bench = Bench(tmp_path, *NAMES)
    theirs: dict[str, object] = {f"databases.orders.db_config.{key}": "5" for key in ("port", "password")}
    bench.while_tried = lambda _: remote.save(tmp_path, bench.layers.file, theirs)
    before = bench.reconfiguration.config
    with pytest.raises(CommandRefused, match="changed by somebody else"):
        bench.reconfiguration.accept("orders", {**change("o"), "target": "orders"})
    assert (bench.reconfiguration.config, bench.stored, bench.sources[0].closes) == (before, theirs, 1)


def test_many_changes_from_several_threads_are_all_kept(tmp_path: Path) -> None:
    names = [f"db-{number}" for number in range(4)]
    bench = Bench(tmp_path, *names)
    start = threading.Barrier(len(names))
    wrong = list[BaseException]()

    def work(name: str) -> None:
        start.wait()
        try:
            for number in range(1, 9):
                bench.reconfiguration.accept(name, {"target": name, "db_config": {"read_timeout": number}})
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert bench.stored == {f"databases.{name}.db_config.read_timeout": 8 for name in names}
    assert bench.layers.build(bench.stored) == bench.reconfiguration.config


def test_what_is_tried_while_another_configuration_takes_over_is_not_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.while_tried = lambda _: bench.reconfiguration.end()
    with pytest.raises(CommandRefused, match="read its configuration again"):
        bench.reconfiguration.accept(DEFAULT, {"db_config": {"min_exec_time_ms": 7}})
    assert (bench.stored, bench.told, [source.closes for source in bench.sources]) == ({}, [], [1])
