"""Peers: other tools at the same work: parse an event, keep the session, run the same graph, publish a decision."""
