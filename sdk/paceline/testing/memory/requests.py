"""Requests with an Idempotency-Key in memory, by the conditions of the DynamoDB adapter."""

from typing import Any

from msgspec.structs import replace

from chalicelib.core.ports import RequestRecord


class MemoryRequestStore:
    def __init__(self) -> None:
        self._records: dict[tuple[str, str], RequestRecord] = {}

    def begin(self, record: RequestRecord, abandoned_before: int) -> RequestRecord:
        key = (record.user_id, record.key)
        known = self._records.get(key)
        if known is None:
            self._records[key] = record
        elif self._may_take_over(known, record, abandoned_before):
            self._records[key] = replace(known, begun_at=record.begun_at, owner=record.owner, is_repeat=True)
        return self._records[key]

    def finish(self, record: RequestRecord, answer: dict[str, Any]) -> None:
        self._change(record, answer=answer)

    def abandon(self, record: RequestRecord) -> None:
        self._change(record, begun_at=0)

    def forget(self, record: RequestRecord) -> None:
        known = self._records.get((record.user_id, record.key))
        if known and known.owner == record.owner:
            del self._records[record.user_id, record.key]

    def _may_take_over(self, known: RequestRecord, record: RequestRecord, abandoned_before: int) -> bool:
        same = known.fingerprint == record.fingerprint
        return known.begun_at < abandoned_before and known.answer is None and same

    def _change(self, record: RequestRecord, **changed: Any) -> None:
        known = self._records.get((record.user_id, record.key))
        if known and known.owner == record.owner:
            self._records[record.user_id, record.key] = replace(known, **changed)
