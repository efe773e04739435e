"""How often a lease in a slot is renewed: each renewal writes the leases of all that run beside it."""

import pytest
from msgspec.structs import replace

from chalicelib.core.claim import Candidate, Start, claim
from chalicelib.core.lane import LEASE_MS, SLOT_LEASE_MS, Lane, Lease
from chalicelib.core.limits import parse_limits
from chalicelib.core.ports import Written
from chalicelib.worker.lease_renewal import LeaseRenewer
from tests.factories import NOW, VirtualClock
from tests.memory.stores import MemoryLaneStore


class CountingLanes(MemoryLaneStore):
    renewed_at: list[int]

    def renew_lease(self, user_id: str, lease: Lease, until: int) -> Lease | None:
        self.renewed_at.append(until)
        return super().renew_lease(user_id, lease, until)


def renewals(in_slot: bool, seconds: int) -> tuple[list[int], CountingLanes]:
    """The seconds from the start to each end of the lease that a renewal wrote."""
    lanes, clock = CountingLanes(), VirtualClock()
    lanes.renewed_at = []
    limits = parse_limits("1/second; 3 at once" if in_slot else "1/second")
    lease_ms = SLOT_LEASE_MS if in_slot else LEASE_MS
    start = claim(Lane("ann"), Candidate("t1", 1, 0, in_slot=in_slot), limits, NOW, lease_ms, "token")
    assert isinstance(start, Start)
    write = lanes.claim(Lane("ann"), start)
    assert isinstance(write, Written)
    lease = replace(start, lane=write.lane).lease
    assert lease
    renewer = LeaseRenewer(lanes, clock, in_background=False)
    with renewer.renewing("ann", lease, NOW + 3_600_000, lambda: None):
        for _ in range(seconds):
            clock.sleep(1_000)
            renewer.renew_due()
    return [(until - NOW) // 1_000 for until in lanes.renewed_at], lanes


@pytest.mark.parametrize(("in_slot", "expected"), [(False, [11, 14, 17, 20, 23, 26, 29]), (True, [20, 26, 32])])
def test_a_lease_in_a_slot_is_renewed_from_six_seconds_on_half_as_often_and_lasts_14_seconds(
    in_slot: bool, expected: list[int]
) -> None:
    assert renewals(in_slot, 20)[0] == expected
