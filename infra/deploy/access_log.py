"""Configures API Gateway's access log: one JSON object for each request, without tokens, query strings and bodies."""

from __future__ import annotations

import json
from typing import Any

from infra.deploy.account import Account
from infra.deploy.errors import DeployError
from infra.deploy.stages import FrontDoor, Stage

#: Each field with the variable that API Gateway fills in; a missing one is `-`. Headers, query string and body are left
#: out, since they hold tokens and payloads; and values with quotation marks, since API Gateway does not escape them.
FIELDS = {
    "requestId": "$context.requestId",
    "time": "$context.requestTime",
    "ip": "$context.identity.sourceIp",
    "method": "$context.httpMethod",
    "path": "$context.path",
    "status": "$context.status",
    "errorType": "$context.error.responseType",
    "authorizerStatus": "$context.authorizer.status",
    "integrationStatus": "$context.integration.status",
    "wafStatus": "$context.waf.status",
    "latencyMs": "$context.responseLatency",
    "integrationLatencyMs": "$context.integration.latency",
    "responseBytes": "$context.responseLength",
}
_ROLE = "see 'Access log' in docs/production/going-live.md, or set access_log to false in .chalice/config.json"


def access_log_group(stage: Stage) -> str:
    return f"/aws/apigateway/{stage.full_name}"


def access_log(stage: Stage) -> dict[str, Any]:
    """Returns the log group by logical id; empty for a stage without an access log."""
    if not stage.access_log:
        return {}
    properties = {"LogGroupName": access_log_group(stage), "RetentionInDays": {"Ref": "LogRetentionDays"}}
    kept = {"DeletionPolicy": "Delete", "UpdateReplacePolicy": "Retain"}
    return {"AccessLogGroup": {"Type": "AWS::Logs::LogGroup", **kept, "Properties": properties}}


def access_log_setting(stage: Stage) -> dict[str, Any]:
    """Returns the API's property; empty for a stage without an access log."""
    if not stage.access_log:
        return {}
    destination = {"Fn::GetAtt": ["AccessLogGroup", "Arn"]}
    return {"AccessLogSetting": {"DestinationArn": destination, "Format": json.dumps(FIELDS)}}


def require_log_role(account: Account, stage: Stage) -> None:
    """DeployError if API Gateway has no role with which to write logs; CloudFormation would fail in the middle."""
    is_logged = stage.access_log and stage.front_door is FrontDoor.REST_API
    if is_logged and not account.client("apigateway").get_account().get("cloudwatchRoleArn"):
        raise DeployError(f"API Gateway has no role to write the access log of stage {stage.name}", _ROLE)
