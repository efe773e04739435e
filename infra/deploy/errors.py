"""Turns AWS errors into one line that names the step, the error and the remedy."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's, the base of its connection errors
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

#: Remedies by AWS error code.
_CODE_REMEDIES = {
    "AccessDenied": "grant the caller this permission: docs/production/deploy.md lists what deploying needs",
    "AccessDeniedException": "grant the caller this permission: docs/production/deploy.md lists what deploying needs",
    "ExpiredToken": "log in again",
    "ExpiredTokenException": "log in again",
    "InvalidClientTokenId": "the access key is unknown to AWS: check AWS_ACCESS_KEY_ID or AWS_PROFILE",
    "SignatureDoesNotMatch": "the secret key does not match the access key: check AWS_SECRET_ACCESS_KEY",
    "UnrecognizedClientException": "the access key is unknown to AWS: check AWS_ACCESS_KEY_ID or AWS_PROFILE",
}
_RERUN = "run the same command again; it continues where it stopped"


class DeployError(Exception):
    """A deployment step failed; the message names step, cause and remedy in one line."""

    def __init__(self, step: str, remedy: str = _RERUN) -> None:
        super().__init__(f"{' '.join(step.split())} - {remedy}")


def explained(step: str, error: Exception, endpoint_url: str | None) -> DeployError:
    """Wraps AWS's error with the failed step and a remedy."""
    return DeployError(f"{step}: {error}", _remedy(error, endpoint_url))


def _remedy(error: Exception, endpoint_url: str | None) -> str:
    if isinstance(error, ClientError):
        return _CODE_REMEDIES.get(error.response["Error"]["Code"], _RERUN)
    if isinstance(error, ConnectionError):
        return "start LocalStack with `make localstack`" if endpoint_url else "check the network and the region's name"
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, ProfileNotFound)):
        return "log in to AWS (aws configure, AWS_PROFILE), or set AWS_ENDPOINT_URL to deploy to LocalStack"
    if isinstance(error, NoRegionError):
        return "set AWS_DEFAULT_REGION"
    return "check the configuration of the AWS client" if isinstance(error, BotoCoreError) else _RERUN
