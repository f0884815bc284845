"""What could go wrong: a change is kept although the database refuses it, half of a change is kept, the old source is
closed or replaced by a failed one, a stored file that was damaged kills the watch, a secret reaches the answer,
the backend weakens the redaction.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import remote
from agent.config.layers import Layers
from agent.config.schema import Config
from agent.errors import CommandRefused, LoginRefused
from agent.reconfigure import Reconfiguration
from tests.fakes.manual import config_tree
from tests.fakes.source import FakeSource

SECRET = "hunter2-is-secret"


class Bench:
    def __init__(self, directory: Path, **tree: object) -> None:
        self.layers = Layers(config_tree(**tree), {}, directory)
        self.sources: list[FakeSource] = []
        self.asked: list[Config] = []
        self.refuses = False
        self.reconfiguration = Reconfiguration(self.layers.build({}), self.layers, self._make)

    def _make(self, config: Config) -> FakeSource:
        source = FakeSource()
        source.refusal = LoginRefused(f"user {config.db_config.user}") if self.refuses else None
        self.asked.append(config)
        self.sources.append(source)
        return source

    @property
    def stored(self) -> dict[str, object]:
        return remote.overlay(self.layers.data_dir, self.layers.file, "any")


def test_a_change_of_the_database_is_tried_kept_and_gives_a_new_source(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    source = bench.reconfiguration.accept({"db_config": {"host": "other", "password": SECRET}})
    assert (source, bench.sources[0].checks, bench.sources[0].closes) == (bench.sources[0], 1, 0)
    assert bench.reconfiguration.config.db_config.host == "other"
    assert bench.stored == {"db_config.host": "other", "db_config.password": SECRET}


def test_a_change_of_an_interval_leaves_the_source_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.reconfiguration.accept({"collection_interval": 5}) is None
    assert (bench.sources, bench.reconfiguration.config.collection_interval) == ([], 5)


def test_what_the_database_refuses_is_not_kept_and_names_no_secret(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.refuses = True
    before = bench.reconfiguration.config
    with pytest.raises(CommandRefused) as refused:
        bench.reconfiguration.accept({"db_config": {"password": SECRET}})
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
        bench.reconfiguration.accept(params)
    assert (bench.sources, bench.stored, SECRET in str(refused.value)) == ([], {}, False)


@pytest.mark.parametrize("mode", ["safe", "any"])
@pytest.mark.parametrize(
    "params",
    [{"redact": "secrets"}, {"redact": "secrets", "heartbeat_interval": 5}, {"db_config": {"redact": "secrets"}}],
)
def test_the_backend_cannot_have_more_of_the_texts(tmp_path: Path, params: dict[str, object], mode: str) -> None:
    bench = Bench(tmp_path, redact="fingerprint", remote_config=mode)
    with pytest.raises(CommandRefused, match="redact"):
        bench.reconfiguration.accept(params)
    assert (bench.sources, bench.stored, bench.reconfiguration.config.redact) == ([], {}, "fingerprint")


def test_a_source_that_is_made_for_a_change_redacts_as_before(tmp_path: Path) -> None:
    bench = Bench(tmp_path, redact="literals", remote_config="any")
    bench.reconfiguration.accept({"db_config": {"max_sql_text_bytes": 2_000}})
    assert [config.redact for config in bench.asked] == ["literals"]


def test_switched_off_it_refuses_everything(tmp_path: Path) -> None:
    bench = Bench(tmp_path, remote_config="off")
    with pytest.raises(CommandRefused, match="off"):
        bench.reconfiguration.accept({"collection_interval": 5})


def test_a_change_that_cannot_be_stored_is_not_in_force(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "missing")
    before = bench.reconfiguration.config
    with pytest.raises(CommandRefused, match="stored"):
        bench.reconfiguration.accept({"db_config": {"password": SECRET}})
    assert (bench.reconfiguration.config, bench.sources[0].closes) == (before, 1)


def test_a_damaged_file_of_earlier_changes_is_a_refusal_and_no_defect(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (tmp_path / remote.FILE_NAME).write_text("{broken")
    with pytest.raises(CommandRefused, match=remote.FILE_NAME):
        bench.reconfiguration.accept({"collection_interval": 5})


def test_the_same_change_again_is_accepted_and_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    params = {"db_config": {"password": SECRET}}
    assert bench.reconfiguration.accept(params) is not None
    assert bench.reconfiguration.accept(params) is None


def test_a_later_change_is_laid_over_an_earlier_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.reconfiguration.accept({"collection_interval": 5})
    bench.reconfiguration.accept({"heartbeat_interval": 6})
    config = bench.reconfiguration.config
    assert (config.collection_interval, config.heartbeat_interval) == (5, 6)
