"""The outcomes of facts that are not as on AWS, by port: each is a strict expected failure."""

from typing import Any

DIFFERENCES: dict[str, dict[str, Any]] = {
    "own": {
        "a repeated query parameter has all its values and the last as single value": [
            ["electronics", "books"],
            "no single value",
        ],
        "names of headers keep their case but for authorization": ["test-header", "authorization"],
    },
    "moto": {
        "a receive takes all of one group before the next": ["a1", "b1", "a2", "a3"],
        "groups whose visibility timeout passed come back in order behind those that waited": [
            *("a2", "a3", "a4", "b1", "c1"),
        ],
        "a receive that hides for no time sends its groups behind those that waited": [
            ["a1", "b1", "b2"],
            ["a1", "b2", "c1"],
        ],
        "a group comes in the same order after its visibility timeout": [["a1", "a2", "a3"], ["a3"]],
        "a head that is shown again comes without the hidden rest of its group": ["b1"],
        "a head hidden for a second comes then without the hidden rest of its group": ["b1"],
        "while its second message stays hidden a group gives its head": [],
        "while its last message stays hidden a group gives those before": [],
        "a group whose messages in flight are deleted comes by the age of its next": ["a2", "b2", "a3", "a4", "c1"],
        "a group stays hidden until all of it in flight is deleted": ["a2", "a3", "a4", "c1"],
        "a fifo queue refuses a delete after the visibility timeout": "accepted",
        "the error of that delete": "",
        "the error of hiding a deleted message": "ReceiptHandleIsInvalid: The input receipt handle is invalid.",
        "a send is a repeat also after the first message was deleted": [["a1"], ["a1"]],
        "with scope queue no other group may use the same id": [["a1"], ["b1"]],
        "the error of a batch write without the key": (
            "ValidationException: One or more parameter values were invalid: Missing the key id in the item"
        ),
    },
    "ministack": {
        "a receive takes all of one group before the next": ["a1", "b1", "a2", "a3"],
        "groups whose visibility timeout passed come back in order behind those that waited": [
            *("a1", "a2", "a3", "a4", "b1", "c1"),
        ],
        "a receive that hides for no time sends its groups behind those that waited": [
            ["a1", "b1", "b2"],
            ["a1", "b1", "b2", "c1", "a2"],
        ],
        "a head that is shown again comes without the hidden rest of its group": ["b1"],
        "a head hidden for a second comes then without the hidden rest of its group": ["b1"],
        "while its second message stays hidden a group gives its head": [],
        "while its last message stays hidden a group gives those before": [],
        "a group whose messages in flight are deleted comes by the age of its next": ["a2", "b2", "a3", "a4", "c1"],
        "a group stays hidden until all of it in flight is deleted": ["a2", "a3", "a4", "c1"],
        "a fifo queue refuses a delete after the visibility timeout": "accepted",
        "the error of that delete": "",
        "the receipt of an earlier receive still shows the message of a standard queue": [],
        "the error of hiding a deleted message": "ReceiptHandleIsInvalid: The input receipt handle is invalid.",
        "an answer with a malformed failure fails the whole batch": [],
        "a double slash before the path becomes one": "//proxy-value",
        "a path stays percent encoded": "/test+alias@gmail.com",
        "a path parameter stays percent encoded": "test+alias@gmail.com",
        "a repeated query parameter has all its values and the last as single value": [
            ["electronics", "books"],
            "electronics",
        ],
        "names of headers keep their case but for authorization": ["test-header", "authorization"],
        "an answer of headers alone is a 200": ["200", '{"headers": {"test-header": "value"}}'],
        "an answer with an unknown key is a 502": ["200", "no body"],
        "an answer that is no object is a 502": ["200", "justAString"],
        "a status of letters is a 502": ["500", "no body"],
        "a header given in both forms has all its values": "value-multi",
        "a default with a status replaces the status of each response that is not put": ["504", "body"],
    },
    "localstack": {
        "a group whose messages in flight are deleted comes by the age of its next": ["b1", "b2", "c1", "a3", "a4"],
        "the error of a write to a table that does not exist": (
            "ResourceNotFoundException: Cannot do operations on a non-existent table"
        ),
        "names of headers keep their case but for authorization": ["Test-Header", "Authorization"],
    },
}
