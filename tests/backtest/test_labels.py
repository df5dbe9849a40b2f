"""Answers: what followed, as one reads it off a session that has ended, and never from what was known already."""

from hypothesis import given
from hypothesis import strategies as st

from clickscore.backtest.labels import NO_LABEL, Label, SessionAction, label_session
from clickscore.model.examples import LEAVE, NEXT_ACTION_CLASS, NO_CLASS
from clickscore.schemas.events import ACTIONS
from clickscore.schemas.manifest import NEXT_ACTIONS

VIEW, CART, REMOVE, PURCHASE, SEARCH = (
    ACTIONS.index(name) for name in ("view", "cart", "remove_from_cart", "purchase", "search")
)


def view(ts: int, item: str) -> SessionAction:
    return SessionAction(ts, VIEW, item)


def test_next_item_is_that_of_the_next_event() -> None:
    session_labels = label_session([view(1, "a"), view(2, "b"), view(3, "c")])
    assert [label.item for label in session_labels] == ["b", "c", ""]


def test_last_event_leaves() -> None:
    assert label_session([view(1, "a")]) == [NO_LABEL]
    assert NEXT_ACTIONS[NO_LABEL.action] == "leave"


def test_same_item_again_is_an_answer() -> None:
    assert label_session([view(1, "a"), SessionAction(2, CART, "a")])[0] == Label(
        "a", NEXT_ACTIONS.index("cart"), purchased=False
    )


def test_purchase_is_known_to_all_events_before_it_and_not_to_itself() -> None:
    session_labels = label_session([view(1, "a"), view(2, "b"), SessionAction(3, PURCHASE, "b"), view(4, "c")])
    assert [label.purchased for label in session_labels] == [True, True, False, False]


def test_search_and_removal_are_no_answers() -> None:
    session_labels = label_session(
        [view(1, "a"), SessionAction(2, SEARCH, ""), SessionAction(3, REMOVE, "a"), view(4, "b")]
    )
    assert session_labels[0] == Label("b", NEXT_ACTIONS.index("view"), purchased=False)


def test_event_out_of_order_is_judged_by_what_followed_all_that_was_known() -> None:
    late = [view(1, "a"), view(3, "c"), view(2, "b"), view(4, "d")]  # b arrives when c is known
    assert [label.item for label in label_session(late)] == ["b", "d", "d", ""]


def test_of_events_at_the_same_time_the_first_to_arrive_comes_first() -> None:
    assert [label.item for label in label_session([view(1, "a"), view(1, "b"), view(1, "c")])] == ["b", "c", ""]


def naive(acts: list[SessionAction]) -> list[Label]:
    """The same by definition: of what arrived later and is later than all that was known, the first in event time."""
    session_labels: list[Label] = []
    for position in range(len(acts)):
        newest = max(act.ts for act in acts[: position + 1])
        later = sorted((act for act in acts[position + 1 :] if act.ts >= newest), key=lambda act: act.ts)
        item = next((act.item for act in later if act.item and act.action != REMOVE), "")
        classes = [int(NEXT_ACTION_CLASS[act.action]) for act in later if NEXT_ACTION_CLASS[act.action] != NO_CLASS]
        session_labels.append(
            Label(item, classes[0] if classes else LEAVE, any(act.action == PURCHASE for act in later))
        )
    return session_labels


acts = st.builds(
    SessionAction,
    ts=st.integers(0, 12),
    action=st.integers(1, len(ACTIONS) - 1),
    item=st.sampled_from("abcd"),
).map(lambda act: act._replace(item="") if act.action == SEARCH else act)


@given(st.lists(acts, max_size=12))
def test_answers_are_those_by_definition(session: list[SessionAction]) -> None:
    assert label_session(session) == naive(session)


@given(st.lists(acts, min_size=1, max_size=12), st.integers(1, 12))
def test_no_answer_depends_on_what_was_known(session: list[SessionAction], cut: int) -> None:
    """What arrived before an event, in any other form with the same newest time, changes nothing of its answer."""
    cut = min(cut, len(session))
    newest = max(act.ts for act in session[:cut])
    others = [*(view(0, "z") for _ in range(cut - 1)), view(newest, "z")]
    assert label_session([*others, *session[cut:]])[cut - 1] == label_session(session)[cut - 1]
