from clickscore.schemas.retraining import RetrainingLease, decode_lease, encode_lease, follows


def lease(holder: str, taken_at: int, ends_at: int) -> RetrainingLease:
    return RetrainingLease(holder=holder, taken_at=taken_at, ends_at=ends_at)


def test_first_lease_is_in_force():
    assert follows(None, lease("a", 0, 10)) == lease("a", 0, 10)


def test_other_holder_waits_for_the_end():
    assert follows(lease("a", 0, 10), lease("b", 9, 19)) == lease("a", 0, 10)
    assert follows(lease("a", 0, 10), lease("b", 10, 20)) == lease("b", 10, 20)


def test_holder_renews_and_gives_back():
    assert follows(lease("a", 0, 10), lease("a", 5, 15)) == lease("a", 5, 15)
    assert follows(lease("a", 5, 5), lease("b", 6, 16)) == lease("b", 6, 16)


def test_late_renewal_does_not_take_the_lease_from_its_new_holder():
    assert follows(lease("b", 10, 20), lease("a", 12, 22)) == lease("b", 10, 20)


def test_lease_is_read_as_written():
    assert decode_lease(encode_lease(lease("a", 1, 2))) == lease("a", 1, 2)
