"""What a command says when it refuses."""

from click.testing import Result

from clickscore.schemas.errors import ClickscoreError


def refusal(result: Result) -> str:
    """Return the message of the error that ended a command: one line, which the command line prints."""
    assert isinstance(result.exception, ClickscoreError), result.output
    message = str(result.exception)
    assert "\n" not in message
    return message
