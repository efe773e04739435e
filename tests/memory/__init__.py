"""In-memory adapters of the ports: those of `paceline.testing`, by the names under which tests import them."""

import sys

from chalicelib.tasks.outside import expose_sdk

expose_sdk()  # for programs that pytest does not start

from paceline.testing.memory import (  # noqa: E402
    directory,
    failed_tasks,
    requests,
    scheduled_queue,
    schedules,
    shared_limits,
    stores,
    task_queue,
)

for _module in (directory, failed_tasks, requests, scheduled_queue, schedules, shared_limits, stores, task_queue):
    sys.modules[f"{__name__}.{_module.__name__.rpartition('.')[2]}"] = _module
