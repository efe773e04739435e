"""What can go wrong in a deployment, each in one line with how to mend it."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own, the parent of all its failures to connect
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

#: By the code of AWS's error.
_CODE_REMEDIES = {
    "AccessDenied": "the caller needs that right: docs/production/deploy.md lists the rights",
    "AccessDeniedException": "the caller needs that right: docs/production/deploy.md lists the rights",
    "ExpiredToken": "log in again",
    "ExpiredTokenException": "log in again",
    "InvalidClientTokenId": "the access key is not one of AWS's: check AWS_ACCESS_KEY_ID or AWS_PROFILE",
    "SignatureDoesNotMatch": "the secret key is not the access key's: check AWS_SECRET_ACCESS_KEY",
    "UnrecognizedClientException": "the access key is not one of AWS's: check AWS_ACCESS_KEY_ID or AWS_PROFILE",
}
_AGAIN = "run the same command again, it goes on where it stopped"


class DeployError(Exception):
    """A step failed; the message says what, why and what to do, in one line."""

    def __init__(self, what: str, remedy: str = _AGAIN) -> None:
        super().__init__(f"{' '.join(what.split())} - {remedy}")


def explained(step: str, error: Exception, endpoint_url: str | None) -> DeployError:
    """The same error as one line: which step it was, what AWS said, how to mend it."""
    return DeployError(f"{step}: {error}", _remedy(error, endpoint_url))


def _remedy(error: Exception, endpoint_url: str | None) -> str:
    if isinstance(error, ClientError):
        return _CODE_REMEDIES.get(error.response["Error"]["Code"], _AGAIN)
    if isinstance(error, ConnectionError):
        return "start LocalStack with `make localstack`" if endpoint_url else "check the network and the region's name"
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, ProfileNotFound)):
        return "log in to AWS (aws configure, AWS_PROFILE), or set AWS_ENDPOINT_URL to deploy to LocalStack"
    if isinstance(error, NoRegionError):
        return "set AWS_DEFAULT_REGION"
    return "check the configuration of the AWS client" if isinstance(error, BotoCoreError) else _AGAIN
