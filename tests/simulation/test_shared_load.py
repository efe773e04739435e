"""Many lanes that want one shared limit at once: the share of its starts that they use, and the writes of each."""

from bench.shared import Model


def test_lanes_use_every_start_of_a_full_shared_limit_by_turns_with_about_two_writes_each() -> None:
    model = Model("api: 10/second", lanes=20, seconds=16).run()
    assert model.share(10) >= 0.99
    assert model.over(10) == 0
    assert model.difference() <= 1
    assert model.refused <= 0.1 * len(model.late_ms())
    assert model.calls_per_start(("try_claim", "claim", "ask", "add_waiter", "trim")) <= 2.4


def test_writes_that_the_item_refuses_make_starts_late_and_never_too_many() -> None:
    model = Model("api: 10/second", lanes=30, seconds=30, units_a_second=12).run()
    assert model.throttled > 100
    assert model.over(10) == 0
    assert 0.4 <= model.share(10) <= 0.9
    assert len({user for _, _, user in model.starts}) >= 25  # one whose writes were refused again and again waits 57 s


def test_lanes_use_the_starts_of_a_limit_over_shards_beyond_the_writes_of_one_item() -> None:
    model = Model("api: 120/second", lanes=120, seconds=13, units_a_second=1_000).run()
    assert model.share(120) >= 0.99
    assert model.over(120) == 0
    assert model.throttled == 0
