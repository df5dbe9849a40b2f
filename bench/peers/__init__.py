"""Peers: what one would use instead, each at the same work: parse, session, the same graph, a decision an event."""
