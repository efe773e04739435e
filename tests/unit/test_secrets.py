"""No secret gets where people read: not into printed settings, not into what is said when one is wrong."""

from __future__ import annotations

import pytest

from chalicelib.core.errors import SettingError
from chalicelib.settings import Settings

SECRET = "0123456789abcdef0123456789abcdef"
WEBHOOK = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def test_printed_settings_hold_no_secret() -> None:
    settings = Settings.from_env({"AUTH": "jwt", "JWT_SECRET": SECRET, "WEBHOOK_SECRET": WEBHOOK})
    for secret in (SECRET, WEBHOOK, WEBHOOK.removeprefix("whsec_")):
        assert secret not in repr(settings)
        assert secret not in str(settings)


@pytest.mark.parametrize(
    ("variable", "wrong"), [("JWT_SECRET", "s3cret-but-short"), ("WEBHOOK_SECRET", "s3cret-but-no-key")]
)
def test_error_about_a_secret_does_not_quote_it(variable: str, wrong: str) -> None:
    with pytest.raises(SettingError) as caught:
        Settings.from_env({"AUTH": "jwt", "JWT_SECRET": SECRET, variable: wrong})
    assert variable in str(caught.value)
    assert wrong not in str(caught.value)
