"""A simple event source: receives one message at a time, calls the worker, deletes the message if it succeeded."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from bench.events import Context
from bench.receipts import lengthened
from chalicelib.aws.client import client
from local.invocation import sqs_event
from local.queue_source import Message, Source

#: Invocations at the same time.
CONCURRENCY = 200


class LambdaSource:
    """Uses BatchSize 1 and respects `batchItemFailures`. Runs from `start` to `stop`."""

    def __init__(self, worker: Callable[[Any, Any], Any], queue_url: str, queue_arn: str) -> None:
        self._worker = worker
        self._queue_arn = queue_arn
        # By boto3, whose calls are counted.
        self._source = Source(queue_url, client("sqs", os.environ["AWS_ENDPOINT_URL"], is_boto3=True))
        self._pool = ThreadPoolExecutor(CONCURRENCY)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._poll)
        self.done = 0
        self.deferred = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._pool.shutdown()

    def _poll(self) -> None:
        while not self._stopping.is_set():
            for message in self._source.receive(1, 1):
                # result() raises what the invocation raised.
                self._pool.submit(self._invoke, message).add_done_callback(lambda invocation: invocation.result())

    def _invoke(self, message: Message) -> None:
        as_on_aws = replace(message, receipt=lengthened(message.receipt))
        answer = self._worker(sqs_event(as_on_aws, self._queue_arn), Context())
        is_done = not answer["batchItemFailures"]
        if is_done:
            self._source.delete([message])
        with self._lock:
            self.done += is_done
            self.deferred += not is_done
