"""Talking to a Kafka broker, and an embedded one."""
