from __future__ import annotations

from pathlib import Path

import pytest

from chalicelib.core.errors import SettingError
from infra.environment import emulator_defaults
from infra.stack import OUTPUT_VARIABLES, at_endpoint
from local.programs import app_programs, emulator_program
from local.run_settings import LocalSettings

OUTPUTS = dict.fromkeys(OUTPUT_VARIABLES.values(), "value")


def test_nothing_set_gives_the_documented_defaults() -> None:
    settings = LocalSettings.from_env({})
    assert settings.url == "http://127.0.0.1:8000"
    assert settings.state_dir == Path.cwd() / ".paceline"
    assert settings.log_dir == Path.cwd() / "logs"
    assert settings.endpoint_url is None
    assert settings.health_interval_seconds == 10
    assert settings.stop_wait_seconds == 65
    assert (settings.keep_finished, settings.finished_at_most) == ("7d", 250_000)


@pytest.mark.parametrize("number", ["-1", "many", "1e3", "1000000000"])
def test_a_number_of_finished_tasks_out_of_range_is_refused(number: str) -> None:
    with pytest.raises(SettingError, match=r"^FINISHED_AT_MOST: must be a whole number from 0"):
        LocalSettings.from_env({"FINISHED_AT_MOST": number})


def test_programs_get_how_long_finished_tasks_stay() -> None:
    settings = LocalSettings.from_env({"KEEP_FINISHED": "2d", "FINISHED_AT_MOST": "9"})
    assert all(program.environment["KEEP_FINISHED"] == "2d" for program in app_programs(settings, OUTPUTS))
    assert emulator_program(settings, 1).command[-1] == "9"


def test_an_empty_variable_counts_as_not_set() -> None:
    assert LocalSettings.from_env({"PORT": "", "AWS_ENDPOINT_URL": ""}) == LocalSettings.from_env({})


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "80.0", "٣"])
def test_a_port_out_of_range_is_refused(port: str) -> None:
    with pytest.raises(SettingError, match=r"^PORT: must be a whole number from 1 to 65535"):
        LocalSettings.from_env({"PORT": port})


@pytest.mark.parametrize("name", ["HEALTH_INTERVAL", "STOP_WAIT"])
@pytest.mark.parametrize("seconds", ["0", "-1", "often", "nan", "1e9"])
def test_seconds_out_of_range_are_refused(name: str, seconds: str) -> None:
    with pytest.raises(SettingError, match=rf"^{name}"):
        LocalSettings.from_env({name: seconds})


def test_an_endpoint_without_a_scheme_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^AWS_ENDPOINT_URL"):
        LocalSettings.from_env({"AWS_ENDPOINT_URL": "127.0.0.1:4566"})


def test_sockets_go_where_their_paths_are_short_enough() -> None:
    assert LocalSettings.from_env({"STATE_DIR": "/var/p"}).run_dir == Path("/var/p/run")
    long = LocalSettings.from_env({"STATE_DIR": "/" + "long/" * 30}).run_dir
    assert len(str(long)) < 80
    assert long != LocalSettings.from_env({"STATE_DIR": "/" + "other/" * 30}).run_dir


def test_queue_urls_are_put_at_the_endpoint_in_use() -> None:
    outputs = {"QueueUrl": "http://localhost:1/000/q.fifo", "TableName": "t"}
    assert at_endpoint(outputs, "http://127.0.0.1:2/") == {
        "QueueUrl": "http://127.0.0.1:2/000/q.fifo",
        "TableName": "t",
    }


def test_credentials_that_are_there_are_left_alone() -> None:
    assert emulator_defaults({"AWS_PROFILE": "mine"}) == {}
    assert set(emulator_defaults({})) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"}


def test_own_tasks_outside_are_found_relative_to_the_checkout() -> None:
    assert LocalSettings.from_env({}).tasks_dir is None
    found = LocalSettings.from_env({"TASKS_DIR": "tests/deployed/shop_tasks"}).tasks_dir
    assert found == Path(__file__).parents[1] / "deployed" / "shop_tasks"
    with pytest.raises(SettingError, match=r"^TASKS_DIR: .*/nowhere does not exist; a relative path begins at /"):
        LocalSettings.from_env({"TASKS_DIR": "nowhere"})
