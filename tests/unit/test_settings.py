from typing import Any

import pytest

from chalicelib.core.errors import SettingError
from chalicelib.core.limits import format_limits
from chalicelib.settings import OverLimit, Settings
from tests.factories import make_settings


def test_empty_environment_gives_the_documented_defaults() -> None:
    settings = make_settings()
    assert format_limits(settings.limits) == "1/second; 20/minute"
    assert (settings.over_limit, settings.max_delay_ms) == (OverLimit.QUEUE, 3_600_000)
    assert (settings.max_attempts, settings.backoff_ms, settings.max_payload) == (3, 1_000, 65_536)
    assert (settings.allow_kill, settings.endpoint_url) == (False, None)
    assert settings.stage == "dev"


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_blank_setting_is_as_good_as_none(blank: str) -> None:
    names = ("LIMITS", "OVER_LIMIT", "MAX_DELAY", "MAX_ATTEMPTS", "ALLOW_KILL", "STAGE", "AWS_ENDPOINT_URL", "LOG_DIR")
    assert make_settings(**dict.fromkeys(names, blank)) == make_settings()


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("OVER_LIMIT", "reject", "over_limit", OverLimit.REJECT),
        ("MAX_DELAY", "90", "max_delay_ms", 90_000),
        ("MAX_DELAY", "0", "max_delay_ms", 0),
        ("MAX_DELAY", "1.5s", "max_delay_ms", 1_500),
        ("MAX_DELAY", "250ms", "max_delay_ms", 250),
        ("MAX_DELAY", "250 milliseconds", "max_delay_ms", 250),
        ("MAX_DELAY", "10 minutes", "max_delay_ms", 600_000),
        ("MAX_DELAY", "2m", "max_delay_ms", 120_000),
        ("MAX_DELAY", "12 Days", "max_delay_ms", 12 * 86_400_000),
        ("BACKOFF", "1h", "backoff_ms", 3_600_000),
        ("DEADLINE", "11h", "deadline_ms", 39_600_000),
        ("MAX_ATTEMPTS", "1", "max_attempts", 1),
        ("MAX_ATTEMPTS", " 100 ", "max_attempts", 100),
        ("MAX_PAYLOAD", "262144", "max_payload", 262_144),
        ("MAX_SCHEDULED", "100000", "max_scheduled", 100_000),
        ("MAX_SCHEDULES", "1000", "max_schedules", 1_000),
        ("KEEP_FINISHED", "1d", "keep_finished_ms", 86_400_000),
        ("ALLOW_KILL", "true", "allow_kill", True),
        ("ALLOW_KILL", "YES", "allow_kill", True),
        ("ALLOW_KILL", "0", "allow_kill", False),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:4566", "endpoint_url", "http://127.0.0.1:4566"),
        ("STAGE", "prod-2", "stage", "prod-2"),
    ],
)
def test_setting_is_read(variable: str, text: str, field: str, value: Any) -> None:
    assert getattr(make_settings(**{variable: text}), field) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("LIMITS", "often"),
        ("LIMITS", "1000001/second"),
        ("OVER_LIMIT", "QUEUE"),
        ("OVER_LIMIT", "drop"),
        ("MAX_DELAY", "-1"),
        ("MAX_DELAY", "soon"),
        ("MAX_DELAY", "1 fortnight"),
        ("MAX_DELAY", "1e3"),
        ("MAX_DELAY", "inf"),
        ("MAX_DELAY", "nan"),
        ("MAX_DELAY", "13d"),
        ("MAX_DELAY", "9" * 400),
        ("BACKOFF", "2h"),
        ("DEADLINE", "39601"),
        ("DEADLINE", "500ms"),
        ("MAX_ATTEMPTS", "0"),
        ("MAX_ATTEMPTS", "101"),
        ("MAX_ATTEMPTS", "1.0"),
        ("MAX_ATTEMPTS", "three"),
        ("MAX_SCHEDULED", "0"),
        ("MAX_SCHEDULES", "1001"),
        ("KEEP_FINISHED", "23h"),
        ("KEEP_FINISHED", "367d"),
        ("MAX_PAYLOAD", "1"),
        ("MAX_PAYLOAD", "262145"),
        ("MAX_PAYLOAD", "9" * 5_000),
        ("ALLOW_KILL", "maybe"),
        ("AWS_ENDPOINT_URL", "localhost:4566"),
        ("AWS_ENDPOINT_URL", "ftp://localhost"),
        ("STAGE", "Prod"),
        ("STAGE", "-"),
        ("STAGE", "a" * 17),
        ("STAGE", "a/b"),
    ],
)
def test_wrong_setting_is_named_with_what_is_allowed(variable: str, text: str) -> None:
    with pytest.raises(SettingError) as wrong:
        make_settings(**{variable: text})
    assert wrong.value.variable == variable
    assert str(wrong.value).startswith(f"{variable}: ")
    assert "allowed" in str(wrong.value)


def test_other_variables_are_none_of_its_business() -> None:
    assert Settings.from_env({"PATH": "/bin", "LIMIT": "9/day"}) == make_settings()
