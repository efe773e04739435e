"""Plans of hours without AWS, and of a lane that takes no task for hours: what a drawn plan is too short for."""

from random import Random

from tests.simulation.schedule import Action, Behaviour, Outage, Pause, Plan, Submit

OUTAGE_MS = 3 * 3_600_000
#: Services that fail: the names of their calls, and whether SQS delivers messages meanwhile. Each delivery uses up one
#: of the 1,000 receives after which SQS dead-letters a message.
FAILING = {
    "DynamoDB": (("lanes.", "tasks.", "requests.", "due_tasks.", "scheduled_counts."), False),
    "DynamoDB and SQS": (("",), True),
}


def long_outage(seed: int, failing: str = "DynamoDB", is_lambda: bool = True) -> Plan:
    """Three hours without AWS that begin while tasks wait for the pace, for their time, and for their next attempt."""
    random = Random(f"outage {seed}")
    began = random.randint(2_000, 4_000)
    calls, is_total = FAILING[failing]
    outages = tuple(Outage(began, OUTAGE_MS, prefix, is_total=is_total) for prefix in calls)
    return Plan(seed, "1/second; 3/10 seconds", is_lambda, 3, (0,) * 5, _waiting(random, began), (), outages)


def _waiting(random: Random, began: int) -> tuple[Action, ...]:
    done = Behaviour()
    due = began + random.choice((1_000, 60_000, 5_000_000, OUTAGE_MS - 1_000))
    return (
        Submit(0, "waiting", "backlog", (done,) * random.randint(6, 9)),
        Submit(random.randint(0, 300), "retrying", "again", (Behaviour(fails=2), done)),
        Submit(random.randint(0, 300), "throttled", "slow", (Behaviour(holds=1, holds_ms=20_000), done)),
        Submit(random.randint(0, 300), "scheduled", "due", (done, done), due_at=due),
        Submit(random.randint(0, 300), "told", "callback", (done,) * 5, is_told=True),
        Pause(300, "paused", began + random.choice((60_000, OUTAGE_MS // 2))),
        Submit(600, "paused", "stopped", (done, done)),
        Submit(700, "scheduled", "among them", (done,) * 4),
    )


def throttled(calls: str) -> Plan:
    """An invocation begins 80 s after the receive of its message, which is hidden for 90 s, and runs for 40.

    Its worker, the first one, is cut off from these calls soon after its start.
    """
    long = Submit(0, "ann", "long", (Behaviour(runs_ms=40_000), Behaviour()))
    cut_off = Outage(81_500, 35_000, calls, worker=0)
    return Plan(0, "5/second", True, 2, (0,) * 4, (long,), (), (cut_off,), throttled_until=80_000)


#: A scheduled task whose lane takes none for six hours, twice as long as 16 of the longest delays of a new message.
CLOSED_LANE = Plan(
    seed=0,
    limits="5/second",
    is_lambda=True,
    workers=2,
    offsets=(0,) * 4,
    actions=(
        Pause(0, "ann", 6 * 3_600_000),
        Submit(500, "ann", "due", (Behaviour(),), delay_ms=2_000),
        Submit(6 * 3_600_000, "bob", "last", (Behaviour(),)),
    ),
)
