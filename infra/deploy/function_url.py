"""Replaces API Gateway in a packaged template by a Lambda Function URL of the API's function."""

from __future__ import annotations

import copy
from typing import Any

#: Reads a Function URL's events.
HANDLER = "app.function_url"
#: Logical id of the URL, and the output that holds it.
URL = "FunctionUrl"
#: Of API Gateway, by Chalice's logical ids. No authorizer stands before a URL: the app itself verifies each token.
_REPLACED = (
    *("RestAPI", "APIHandlerInvokePermission", "AccessLogGroup"),
    *("Authorizer", "AuthorizerInvokePermission", "AuthorizerRole"),
)
_REPLACED_OUTPUTS = ("RestAPIId", "EndpointURL")


def with_function_url(template: dict[str, Any], alias: str | None) -> dict[str, Any]:
    """Returns the template with the URL of the API function's alias; alias=None for the function without one.

    SAM could create the URL, but then a stack could not output its address on LocalStack.
    """
    replaced = copy.deepcopy(template)
    for name in _REPLACED:
        replaced["Resources"].pop(name, None)
    for name in _REPLACED_OUTPUTS:
        del replaced["Outputs"][name]
    replaced["Resources"]["APIHandler"]["Properties"]["Handler"] = HANDLER
    replaced["Resources"] |= {URL: _url(alias), **_permissions(alias)}
    replaced["Outputs"][URL] = {"Value": {"Fn::GetAtt": [URL, "FunctionUrl"]}}
    return replaced


def _url(alias: str | None) -> dict[str, Any]:
    properties = {"TargetFunctionArn": {"Ref": "APIHandler"}, "AuthType": "NONE"}
    if alias is None:
        return {"Type": "AWS::Lambda::Url", "Properties": properties}
    return {
        "Type": "AWS::Lambda::Url",
        "DependsOn": [f"APIHandlerAlias{alias}"],
        "Properties": properties | {"Qualifier": alias},
    }


def _permissions(alias: str | None) -> dict[str, Any]:
    """Returns the rights of everybody to call the URL. AWS asks for both for URLs made since October 2025."""
    call_url = {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"}
    permissions = {f"{URL}Permission": _permission(call_url)}
    if alias is not None:  # LocalStack does not know the property
        call_function = {"Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True}
        permissions[f"{URL}InvokePermission"] = _permission(call_function)
    return permissions


def _permission(properties: dict[str, Any]) -> dict[str, Any]:
    function = {"FunctionName": {"Ref": "APIHandler"}, "Principal": "*"}
    return {"Type": "AWS::Lambda::Permission", "Properties": function | properties}
