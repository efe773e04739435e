"""The OpenAPI operations on shared limits."""

from chalicelib.api.operations import BODY, GUARDED, UNAVAILABLE, Answer, Operation, ok
from chalicelib.api.schema import PauseRequest
from chalicelib.api.shared_schema import SharedLimitAnswer, SharedLimitListAnswer, SharedLimitsRequest

_PATH = "/api/v1/limits/{name}"
_FORM = GUARDED | UNAVAILABLE | {400: Answer("The name is invalid.")}
_COMMON = _FORM | {404: Answer("There is no shared limit of that name.")}
_ONE = {200: ok(SharedLimitAnswer, "The shared limit's current state.")}

SHARED_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "GET",
        "/api/v1/limits",
        "listSharedLimits",
        "List the limits that many users share",
        GUARDED | UNAVAILABLE | {200: ok(SharedLimitListAnswer, "All of them, by name.")},
    ),
    Operation(
        "GET", _PATH, "getSharedLimit", "Get a shared limit and who waits for it", _COMMON | _ONE, ("limits.name",)
    ),
    Operation(
        "PUT",
        _PATH,
        "putSharedLimit",
        "Set a shared limit, which applies from the next start on, or make one",
        _FORM | BODY | _ONE,
        ("limits.name",),
        SharedLimitsRequest,
    ),
    Operation(
        "DELETE",
        _PATH,
        "deleteSharedLimit",
        "Take back what was set; without a setting, waiting tasks go on under their users' limits alone",
        _COMMON | _ONE,
        ("limits.name",),
    ),
    Operation(
        "POST",
        f"{_PATH}/pause",
        "pauseSharedLimit",
        "Pause a shared limit, optionally until a time; no task that counts against it starts after the answer",
        _COMMON | BODY | _ONE,
        ("limits.name",),
        PauseRequest,
        False,
    ),
    Operation(
        "POST",
        f"{_PATH}/resume",
        "resumeSharedLimit",
        "End the pause and the throttling of a shared limit",
        _COMMON | _ONE,
        ("limits.name",),
    ),
)
