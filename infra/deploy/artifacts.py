"""Uploads what CloudFormation reads for a deployment, template and archive, to an S3 bucket of the account."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from infra.deploy.account import Account
from infra.deploy.stages import Stage

#: S3 refuses requests for a bucket that name this region, which is the default.
_UNNAMED_REGION = "us-east-1"


class Artifacts:
    """The stage's objects in the bucket, which all stages of an account and region share. Keys are hashes."""

    def __init__(self, account: Account, stage: Stage) -> None:
        self._s3 = account.client("s3")
        self._account = account
        self._prefix = f"{stage.name}/"
        self._bucket = f"paceline-{account.number}-{account.region}"
        self._uploaded: set[str] = set()

    def upload(self, template: Path, archive: Path) -> str:
        """Uploads both, the template with the archive's address in it; returns the template's URL."""
        self._create_bucket()
        key = self._put(archive.read_bytes(), "zip")
        uploaded = with_code(json.loads(template.read_text()), f"s3://{self._bucket}/{key}")
        template_key = self._put(json.dumps(uploaded).encode(), "json")
        endpoint = self._account.endpoint_url or f"https://s3.{self._account.region}.amazonaws.com"
        return f"{endpoint}/{self._bucket}/{template_key}"

    def delete_earlier(self) -> None:
        """Deletes earlier deployments' objects. Call it after a success: until then a rollback needs them."""
        for key in self._keys() - self._uploaded:
            self._s3.delete_object(Bucket=self._bucket, Key=key)

    def delete(self) -> None:
        """Deletes the stage's objects, and the bucket if no other stage uses it."""
        try:
            for key in self._keys():
                self._s3.delete_object(Bucket=self._bucket, Key=key)
            self._s3.delete_bucket(Bucket=self._bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchBucket", "BucketNotEmpty"):
                raise

    def _create_bucket(self) -> None:
        region = self._account.region
        location = {} if region == _UNNAMED_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self._s3.create_bucket(Bucket=self._bucket, **location)
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                raise

    def _put(self, content: bytes, suffix: str) -> str:
        key = f"{self._prefix}{hashlib.sha256(content).hexdigest()}.{suffix}"
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=content)
        self._uploaded.add(key)
        return key

    def _keys(self) -> set[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        return {found["Key"] for page in pages for found in page.get("Contents", ())}


def with_code(template: dict[str, Any], code_uri: str) -> dict[str, Any]:
    """Returns the template with this archive for every function."""
    functions = (one for one in template["Resources"].values() if one["Type"] == "AWS::Serverless::Function")
    for function in functions:
        function["Properties"]["CodeUri"] = code_uri
    return template
