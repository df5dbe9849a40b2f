"""Producer: send natural sessions at a fixed rate. Each event is sent when due, and never waits for earlier events.

The producer is a process: `python -m bench.producer RATE SECONDS`. The `ts` of an event is its send time.
"""

import sys
import time

from bench.load import producer
from bench.logs import natural_acts
from clickscore.schemas.topics import EVENTS
from clickscore.stream.settings import load

SHOPPER_ACTS_EVERY_MS = 30_000


def main(rate: float, seconds: float) -> None:
    settings, _ = load()
    sender, topic = producer(settings), settings.kafka.topic(EVENTS.name)
    acts = natural_acts(rate, between_ms=SHOPPER_ACTS_EVERY_MS)
    scheduled = [next(acts) for _ in range(int(rate * seconds))]
    started_at = time.perf_counter()
    for number, act in enumerate(scheduled):
        wait = started_at + number / rate - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        record = act.at(number, int(time.time() * 1000))
        sender.produce(topic, value=record.value, key=record.key, partition=record.partition)
        sender.poll(0)
    sender.flush(30)


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]))
