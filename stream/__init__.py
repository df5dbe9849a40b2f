"""How we serve: the worker, the replay, the tools around a topic."""
