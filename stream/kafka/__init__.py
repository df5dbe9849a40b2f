"""Kafka clients, topics and an embedded broker."""
