"""In-memory adapters of the ports: those of `paceline.testing`, by the names under which tests import them."""

import sys

from chalicelib.tasks.outside import expose_sdk

expose_sdk()  # for programs that pytest does not start

from paceline.testing.memory import directory, requests, scheduled_queue, stores, task_queue  # noqa: E402

for _module in (directory, requests, scheduled_queue, stores, task_queue):
    sys.modules[f"{__name__}.{_module.__name__.rpartition('.')[2]}"] = _module
