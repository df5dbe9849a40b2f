"""The commands of `clickscore`, one file an idea; `stream.__main__` gathers them."""
