import asyncio

from clickscore.stream.gateway.decision_memory import DecisionMemory, decode_published_decision
from clickscore.stream.gateway.pending_decisions import PendingDecisions
from tests.stream.gateway.log_double import SOURCE, decision


def remember(memory: DecisionMemory, offset: int, user_id: str) -> bytes:
    value = decision(offset, user_id, f"e{offset}")
    memory.remember(decode_published_decision(value), value)
    return value


def test_newest_decision_of_a_user_is_remembered_as_published() -> None:
    memory = DecisionMemory(10)
    remember(memory, 1, "anna")
    newest = remember(memory, 5, "anna")
    assert memory.newest("anna") == newest
    assert memory.by_log_id(f"{SOURCE}-5") == newest
    assert memory.by_log_id(f"{SOURCE}-1") is None
    assert memory.by_event("anna", "e5") == newest
    assert memory.by_event("anna", "e1") is None
    assert memory.newest("bob") is None


def test_repeat_of_an_older_decision_changes_nothing() -> None:
    memory = DecisionMemory(10)
    newest = remember(memory, 10, "anna")
    remember(memory, 9, "anna")  # as text 9 is more than 10
    assert memory.newest("anna") == newest


def test_user_with_the_oldest_decision_goes_first() -> None:
    memory = DecisionMemory(2)
    for offset, user in enumerate(["anna", "bob", "anna", "cleo"]):
        remember(memory, offset, user)
    assert len(memory) == 2
    assert memory.newest("bob") is None
    assert memory.by_log_id(f"{SOURCE}-1") is None
    assert memory.newest("anna")
    assert memory.newest("cleo")


def test_many_users_stay_within_the_bound() -> None:
    memory = DecisionMemory(100)
    for offset in range(5_000):
        remember(memory, offset, f"user-{offset % 700}")
    assert len(memory) == 100
    assert len(memory._users) == 100


def test_erased_user_is_forgotten_even_if_an_earlier_decision_is_read_later() -> None:
    memory = DecisionMemory(10)
    remember(memory, 1, "anna")
    memory.forget("anna", f"{SOURCE}-3")
    assert memory.newest("anna") is None
    remember(memory, 2, "anna")
    assert memory.newest("anna") is None
    assert memory.by_log_id(f"{SOURCE}-2") is None
    assert remember(memory, 4, "anna") == memory.newest("anna")


def test_request_gets_the_decision_on_its_event_alone() -> None:
    async def run() -> tuple[bool, bytes, int]:
        pending = PendingDecisions()
        mine, other = decision(1, "anna", "e1"), decision(2, "anna", "e2")
        with pending.expect("anna", "e1") as first, pending.expect("anna", "e1") as second:
            pending.resolve(decode_published_decision(other), other)
            is_early = first.done()
            pending.resolve(decode_published_decision(mine), mine)
            pending.resolve(decode_published_decision(mine), mine)
            assert await second == mine
            return is_early, await first, len(pending)

    assert asyncio.run(run()) == (False, decision(1, "anna", "e1"), 1)


def test_nothing_remains_of_a_wait_that_has_ended() -> None:
    async def run() -> tuple[int, int]:
        pending = PendingDecisions()
        with pending.expect("anna", "e1"):
            with pending.expect("anna", "e1"):
                pass
            remaining = len(pending)
        return remaining, len(pending)

    assert asyncio.run(run()) == (1, 0)
