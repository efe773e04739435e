"""Gives messages receipt handles as long as those of SQS: an emulator's have 36 characters, and lanes store them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3

#: Characters of a real handle: from 324 to this many.
LENGTH = 432
#: Between the emulator's handle and the rest.
_MARK = "~"


def lengthened(receipt: str) -> str:
    return f"{receipt}{_MARK}".ljust(LENGTH, "x")


def shorten_in_calls() -> None:
    """Makes the clients that this process creates from now on send the emulator its own handles."""
    if boto3.DEFAULT_SESSION is None:
        boto3.setup_default_session()
    session: Any = boto3.DEFAULT_SESSION
    session.events.register("provide-client-params.sqs.ChangeMessageVisibility", _with_short_handle)


def _with_short_handle(params: Mapping[str, Any], **_others: Any) -> dict[str, Any]:
    return {**params, "ReceiptHandle": params["ReceiptHandle"].partition(_MARK)[0]}
