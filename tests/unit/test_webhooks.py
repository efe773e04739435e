"""Our signature, judged by the library that Standard Webhooks itself offers to receivers."""

import base64
import json
from datetime import datetime, timedelta, timezone

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from chalicelib.outbound.signing import secret_bytes, signed_headers

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BODY = json.dumps({"event": "task_completed", "text": "äöü"}).encode()


def now() -> int:
    return int(datetime.now(timezone.utc).timestamp())


def signed(body: bytes = BODY, at: int | None = None) -> dict[str, str]:
    return dict(signed_headers(secret_bytes(SECRET), "0198-0001", now() if at is None else at, body))


def test_the_receiver_accepts_what_we_sign() -> None:
    assert Webhook(SECRET).verify(BODY, signed())["event"] == "task_completed"


def test_an_independent_signature_is_the_same_as_ours() -> None:
    at = datetime(2026, 11, 22, 5, 20, tzinfo=timezone.utc)
    expected = Webhook(SECRET).sign("0198-0001", at, BODY.decode())
    assert signed(at=int(at.timestamp()))["webhook-signature"] == expected


def test_an_empty_body_can_be_signed() -> None:
    at = datetime(2026, 11, 22, 5, 20, tzinfo=timezone.utc)
    assert signed(b"", int(at.timestamp()))["webhook-signature"] == Webhook(SECRET).sign("0198-0001", at, "")


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_the_receiver_refuses_what_was_changed(name: str) -> None:
    changed = {"webhook-id": "0198-0002", "webhook-timestamp": str(now() - 1), "webhook-signature": "v1,AAAA"}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, signed() | {name: changed[name]})
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY + b" ", signed())


def test_the_receiver_refuses_another_secret_and_an_old_call() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(bytes(32)).decode()).verify(BODY, signed())
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY, signed(at=now() - int(timedelta(minutes=10).total_seconds())))


@pytest.mark.parametrize("length", [24, 64])
def test_secret_has_24_to_64_bytes(length: int) -> None:
    assert len(secret_bytes("whsec_" + base64.b64encode(bytes(length)).decode())) == length


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!", "whsec_AAAA", "whsec_" + "A" * 88, "x" * 31, "ä"])
def test_secret_of_another_form_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match=r"base64|bytes") as refused:
        secret_bytes(secret)
    assert len(secret) < 5 or secret[6:] not in str(refused.value) or secret == "whsec_"
