"""The queues of the probes: sends messages to them, and receives the records that their functions sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Record = dict[str, Any]

#: Messages of one call of SQS, as many as it takes.
_BATCH = 10


class Probes:
    """Sends to the probes and collects their records; each record counts once, however often SQS delivers it."""

    def __init__(self, sqs: Any, urls: Mapping[str, str], monotonic: Callable[[], float]) -> None:
        self._sqs = sqs
        #: outputs of the probe stack
        self._urls = urls
        self._monotonic = monotonic
        self._records: dict[tuple[str, str, int], Record] = {}

    def send(self, probe: str, messages: Sequence[tuple[str, Record]]) -> None:
        """Sends messages, each a group and a body; a standard queue has no groups."""
        url = self._urls[_output(probe, "Url")]
        for begin in range(0, len(messages), _BATCH):
            batch = messages[begin : begin + _BATCH]
            entries = [_entry(url, begin + n, group, body) for n, (group, body) in enumerate(batch)]
            answer = self._sqs.send_message_batch(QueueUrl=url, Entries=entries)
            if answer.get("Failed"):
                raise RuntimeError(f"SQS refused a message of probe {probe}: {answer['Failed'][0]['Message']}")

    def counts(self, probe: str, *, dead: bool = False) -> tuple[int, int]:
        """Returns how many of the queue's messages are visible and how many in flight, approximately."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        url = self._urls[_output(probe, "DeadUrl" if dead else "Url")]
        found = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    @property
    def records_seen(self) -> int:
        """Number of invocations of all probes that sent a record."""
        return len(self._records)

    def records(self, run: str) -> list[Record]:
        """Returns the records of this run so far, by the time at which their invocations began."""
        return sorted((one for one in self._records.values() if one["run"] == run), key=lambda one: float(one["begun"]))

    def wait(
        self,
        run: str,
        is_enough: Callable[[list[Record]], bool],
        seconds: float,
        quiet: float | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> list[Record]:
        """Receives until the run's records are enough; ends early after `quiet` seconds without a further one.

        Returns the records that came in time, whether or not they are enough.
        """
        deadline = self._monotonic() + seconds
        last_count, last_news = -1, self._monotonic()
        while not is_enough(found := self.records(run)) and self._monotonic() < deadline:
            if len(found) != last_count:
                last_count, last_news = len(found), self._monotonic()
            elif quiet is not None and self._monotonic() - last_news > quiet:
                break
            if meanwhile:
                meanwhile()
            self._receive()
        return self.records(run)

    def _receive(self) -> None:
        url = self._urls["ResultsUrl"]
        answer = self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=_BATCH, WaitTimeSeconds=1)
        messages = answer.get("Messages", [])
        for message in messages:
            record = json.loads(message["Body"])
            self._records[record["probe"], record["id"], record["receives"]] = record
        if messages:
            entries = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(messages)]
            self._sqs.delete_message_batch(QueueUrl=url, Entries=entries)


def _output(probe: str, kind: str) -> str:
    return f"{probe.title().replace('-', '')}{kind}"


def _entry(url: str, number: int, group: str, body: Record) -> Record:
    entry = {"Id": str(number), "MessageBody": json.dumps(body)}
    if not url.endswith(".fifo"):
        return entry
    return entry | {"MessageGroupId": group, "MessageDeduplicationId": f"{body['run']}-{number}"}
