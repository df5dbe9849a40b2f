"""State of one partition: sessions, watermark, popularity and timers. Pure, bounded, and restored from snapshots."""
