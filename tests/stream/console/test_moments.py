"""The newest events with their decisions, within a bound of bytes."""

from clickscore.stream.console.moments import OVERHEAD_BYTES, Moments


def test_event_and_decision_are_joined_in_either_order() -> None:
    moments = Moments(10**6)
    moments.add_event("t-0-1", "anna", b"event", 5)
    assert moments.add_decision("t-0-1", "anna", b"decision", 9).number == 1
    moments.add_decision("t-0-2", "anna", b"decision", 9)
    moments.add_ad("t-0-2", "anna", b"ad")
    moment = moments.add_event("t-0-2", "anna", b"event", 8)
    assert (moment.number, moment.event, moment.decision, moment.ad) == (2, b"event", b"decision", b"ad")
    assert [moment.log_id for moment in moments.newest("anna")] == ["t-0-2", "t-0-1"]
    assert moments.by_id("t-0-3") is None


def test_repeated_decision_completes_a_moment_once() -> None:
    moments = Moments(10**6)
    moments.add_event("t-0-1", "anna", b"event", 5)
    assert [moments.add_decision("t-0-1", "anna", b"d", 9).number for _ in range(2)] == [1, 1]


def test_oldest_moments_go_with_too_many_bytes() -> None:
    moments = Moments(10 * (OVERHEAD_BYTES + 100))
    for number in range(1000):
        moments.add_event(f"t-0-{number}", f"user-{number % 3}", b"x" * 100, number)
    assert len(moments) == 10
    assert [moment.log_id for moment in moments.newest("user-0")] == ["t-0-999", "t-0-996", "t-0-993", "t-0-990"]
    moments.add_event("t-0-1000", "user-9", b"x" * 10**6, 1000)  # larger than the bound: it alone remains
    assert len(moments) == 1
    assert list(moments.newest("user-0")) == []


def test_forgotten_user_leaves_room_for_others() -> None:
    moments = Moments(4 * (OVERHEAD_BYTES + 100))
    for number in range(4):
        moments.add_event(f"t-0-{number}", "anna" if number < 2 else "ben", b"x" * 100, number)
    moments.forget("anna")
    moments.forget("nobody")
    assert list(moments.newest("anna")) == []
    for number in range(4, 6):
        moments.add_event(f"t-0-{number}", "ben", b"x" * 100, number)
    assert len(list(moments.newest("ben"))) == 4
