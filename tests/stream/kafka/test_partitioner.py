import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickscore.stream.kafka.partitioner import partition_of


@pytest.mark.parametrize(
    ("key", "hashed"),
    [  # from Kafka's own test, org.apache.kafka.common.utils.UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_partition_is_the_one_that_the_java_client_chooses(key: bytes, hashed: int) -> None:
    for partitions in (1, 4, 12, 1000):
        assert partition_of(key, partitions) == (hashed & 0x7FFFFFFF) % partitions


@given(st.binary(), st.integers(1, 1000))
def test_partition_exists(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions
