import numpy as np

from clickscore.model.examples import Examples, make_examples
from clickscore.model.training_batches import iterate_prefixes, pad_prefixes, pad_sessions, shuffle_batches
from tests.model.builders import flat

ROWS = np.array([1, 2, 3, 4, 0, 0, 0, 0])  # a, b, c, d are known; e, f, g, h are not


def make(*sessions: str, max_length: int = 50) -> Examples:
    return make_examples(flat(sessions), ROWS, max_length)


def test_padded_sessions_are_left_aligned_and_as_wide_as_the_longest():
    batch = pad_sessions(make("view:a", "view:b view:c"), np.array([1, 0]))
    assert batch.items.tolist() == [[2, 3], [1, 0]]
    assert batch.actions.tolist() == [[1, 1], [1, 0]]
    assert batch.lengths.tolist() == [2, 1]


def test_beginning_ends_with_its_event():
    batch = pad_prefixes(make("view:a", "view:b view:c view:d"), np.array([2, 0]))
    assert batch.items.tolist() == [[2, 3], [1, 0]]


def test_every_beginning_comes_once_and_unpadded():
    examples = make("view:a view:b view:c", "view:d view:a", "view:b")
    prefixes = {}
    for ends, batch in iterate_prefixes(examples, limit=2):
        assert batch.items.shape[0] <= 2
        assert (batch.items > 0).all()
        prefixes |= dict(zip(ends.tolist(), batch.items.tolist(), strict=True))
    assert prefixes == {0: [1], 1: [1, 2], 2: [1, 2, 3], 3: [4], 4: [4, 1], 5: [2]}


def test_batches_hold_every_session_once():
    lengths = np.random.default_rng(0).integers(1, 9, 1000)
    order = np.concatenate(list(shuffle_batches(lengths, 16, (0, 1))))
    assert sorted(order.tolist()) == list(range(1000))


def test_batches_are_those_of_their_seed():
    lengths = np.arange(1, 101)
    first, repeated, different = (
        np.concatenate(list(shuffle_batches(lengths, 16, (0, epoch)))).tolist() for epoch in (1, 1, 2)
    )
    assert first == repeated != different
