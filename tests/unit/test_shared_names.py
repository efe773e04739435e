"""Names of shared limits: in settings, in definitions of tasks, and by the host of a URL."""

import sys
from pathlib import Path

import pytest

from chalicelib import own_tasks as own
from chalicelib.container import Container
from chalicelib.core.errors import LimitsError, RetryAfter, SettingError
from chalicelib.core.limits import format_limits, most_at_once, parse_limits, parse_shared_limits
from chalicelib.core.names import is_name
from chalicelib.core.shared_names import SharedHost
from chalicelib.outbound.destinations import shared_limit_of
from chalicelib.tasks.registry import Registry
from chalicelib.tasks.registry import registry as registered
from chalicelib.tasks.runner import Throttled
from infra.deploy.errors import DeployError
from infra.deploy.timeouts import require_shared_limits
from local.frames import FrameReader, ended_frame, read_ended
from tests.factories import make_settings

SHARED = "stripe: 25/second; 10 at once | openai: 500/minute; 90000 units/minute"


def test_settings_name_several_shared_limits() -> None:
    shared = make_settings(SHARED_LIMITS=SHARED).shared_limits
    assert {name: format_limits(limits) for name, limits in shared.items()} == {
        "stripe": "25/second; 10 at once",
        "openai": "500/minute; 90000 units/minute",
    }
    assert [most_at_once(limits) for limits in shared.values()] == [10, None]
    assert make_settings().shared_limits == {}


def test_a_number_at_once_may_stand_alone_in_a_shared_limit() -> None:
    alone = parse_shared_limits("10 at once")
    assert (bool(alone), tuple(alone), most_at_once(alone), format_limits(alone)) == (True, (), 10, "10 at once")
    with pytest.raises(LimitsError, match="allowed: up to 5 limits"):
        parse_limits("10 at once")


@pytest.mark.parametrize("name", ["stripe", "S", "0", "api.stripe.com", "a-b_c.d", "x" * 64])
def test_name_of_letters_digits_and_three_signs(name: str) -> None:
    assert list(make_settings(SHARED_LIMITS=f"{name}: 1/second").shared_limits) == [name]


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "_a", "a b", "a/b", "é", "x" * 65, 5, None, "stripe\n"])
def test_other_names_are_none(name: object) -> None:
    assert not is_name(name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("stripe", "allowed: parts such as"),
        ("25/second", "allowed: parts such as"),
        (": 25/second", "allowed: parts such as"),
        ("a/b: 25/second", "allowed: parts such as"),
        ("stripe: often", "'often' is not a valid limit; allowed"),
        ("stripe:", "0 limits found in ''; allowed"),
        ("stripe: 5/second; 101 at once", "1 to 100 tasks run at once; allowed"),
        ("stripe: 1/second | stripe: 2/second", "'stripe' is there twice; allowed: each name once"),
        (" | ".join(f"n{n}: 1/second" for n in range(101)), "allowed: at most 100"),
    ],
)
def test_wrong_shared_limits_are_named_with_what_is_allowed(text: str, reason: str) -> None:
    with pytest.raises(SettingError) as wrong:
        make_settings(SHARED_LIMITS=text)
    assert str(wrong.value).startswith("SHARED_LIMITS: ")
    assert reason in str(wrong.value)


def test_settings_name_the_shared_limits_of_hosts() -> None:
    hosts = make_settings(SHARED_LIMITS=SHARED, HTTP_SHARED="API.stripe.com = stripe , *.openai.com:443=openai")
    assert hosts.http_shared == (SharedHost("api.stripe.com", "stripe"), SharedHost("*.openai.com:443", "openai"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("api.stripe.com", "allowed: parts such as 'api.stripe.com=stripe'"),
        ("=stripe", "allowed: parts such as"),
        ("https://api.stripe.com=stripe", "allowed: parts such as"),
        ("api.stripe.com=strip", "'strip' is not in SHARED_LIMITS; allowed: stripe, openai"),
        ("a.com=stripe,A.com=openai", "'a.com' is there twice; allowed: each host once"),
    ],
)
def test_wrong_hosts_are_named_with_what_is_allowed(text: str, reason: str) -> None:
    with pytest.raises(SettingError) as wrong:
        make_settings(SHARED_LIMITS=SHARED, HTTP_SHARED=text)
    assert str(wrong.value).startswith("HTTP_SHARED: ")
    assert reason in str(wrong.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.stripe.com/v1/charges", "stripe"),
        ("https://API.STRIPE.COM./v1", "stripe"),
        ("http://api.stripe.com:8080/", "stripe"),
        ("https://eu.openai.com/", "openai"),
        ("https://eu.openai.com:8443/", ""),
        ("https://openai.com/", ""),
        ("https://stripe.com.evil.example/", ""),
        ("no url", ""),
    ],
)
def test_host_of_the_url_decides(url: str, name: str) -> None:
    hosts = [SharedHost("api.stripe.com", "stripe"), SharedHost("*.openai.com:443", "openai")]
    assert shared_limit_of(url, hosts) == name


def test_task_names_its_shared_limit() -> None:
    registry = Registry()
    registry.task("charge", shared="stripe")(lambda: None)
    registry.task("free")(lambda: None)
    assert [registry[name].shared_of({}) for name in ("charge", "free")] == ["stripe", ""]
    assert registry.unknown_shared({"stripe": ()}) is None


@pytest.mark.parametrize("shared", ["a b", "-", None, 5])
def test_task_with_a_shared_limit_of_another_form_is_refused(shared: object) -> None:
    with pytest.raises(ValueError, match=r"the task 'charge' has a shared limit .* allowed: 1 to 64 letters"):
        Registry().task("charge", shared=shared)(lambda: None)  # type: ignore[arg-type]


def test_task_with_an_unknown_shared_limit_stops_the_start(own_tasks: None) -> None:
    with pytest.raises(SettingError) as wrong:
        _ = Container(make_settings(SHARED_LIMITS="openai: 1/second")).registry
    expected = "SHARED_LIMITS: it has no limit 'stripe', which the task 'charge' counts against; allowed: openai"
    assert str(wrong.value) == expected
    assert "charge" in Container(make_settings(SHARED_LIMITS=SHARED)).registry


def test_task_with_an_unknown_shared_limit_is_not_deployed() -> None:
    registry = Registry()
    registry.task("charge", shared="stripe")(lambda: None)
    require_shared_limits({"SHARED_LIMITS": SHARED}, registry)
    with pytest.raises(DeployError, match=r"SHARED_LIMITS: it has no limit 'stripe'.*allowed: none, it is empty"):
        require_shared_limits({}, registry)


def test_a_throttling_of_all_passes_between_processes() -> None:
    assert (RetryAfter(1).shared, RetryAfter(1, shared=True).shared) == (False, True)
    throttled = Throttled(5.0, "429", "RetryAfter: 429", is_shared=True)
    [message] = FrameReader().feed(ended_frame(throttled, is_last=False))
    assert read_ended(message) == (throttled, False)


@pytest.fixture
def own_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One own task, whose shared limit is `stripe`."""
    text = 'from chalicelib.tasks import task\n\n\n@task("charge", shared="stripe")\ndef charge() -> None: ...\n'
    (tmp_path / "shared_example.py").write_text(text)
    monkeypatch.setattr(own, "__path__", [str(tmp_path)])
    monkeypatch.setattr(registered, "_definitions", dict(registered._definitions))
    monkeypatch.delitem(sys.modules, "chalicelib.own_tasks.shared_example", raising=False)
