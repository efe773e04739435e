"""Uses the client that openapi-python-client makes of /openapi.json; mypy checks it."""

import json
import sys

from paceline_api import AuthenticatedClient
from paceline_api.api.default import get_task, submit_task, submit_tasks
from paceline_api.models import BulkAnswer, BulkRequest, SubmitRequest, SubmittedTask, TaskAnswer, TaskRequest

client = AuthenticatedClient(base_url=sys.argv[1], token="not-asked-for")

first = submit_task.sync(client=client, body=SubmitRequest(user_id="eve"))
assert isinstance(first, SubmittedTask)
tasks = [TaskRequest(), TaskRequest(task="log", payload={"text": "hello"}), TaskRequest(delay_seconds=60)]
many = submit_tasks.sync(client=client, body=BulkRequest(user_id="eve", tasks=tasks), prefer="respond-async")
assert isinstance(many, BulkAnswer)
task = get_task.sync("eve", first.task_id, client=client)
assert isinstance(task, TaskAnswer)

print(json.dumps({"first": first.state.value, "many": len(many.tasks), "state": task.state.value}))
