"""Session ids of a file: an id from the session's content, so that sessions of files cut separately never share an id.

In a topic, `TOPIC-PARTITION-OFFSET` of the first event is unique. Offsets of a file start at 0 in every file.
"""

import msgspec
import xxhash

from clickscore.schemas.sessions import ClosedSession


def make_content_id(session: ClosedSession) -> str:
    """Return the id `file-HASH`, from the session's user, beginning, name and first event.

    The hash (xxh3, 128 bits) does not depend on the place in the file. So the same session has the same id in two files
    that overlap, and readers recognise the repeat.

    Args:
        session: Session of a file, with the id from its offset.
    """
    default_name = "-".join(session.id.rsplit("-", 2)[1:])  # PARTITION-OFFSET: names a place in the file
    name = "" if session.session_id == default_name else session.session_id
    content = msgspec.json.encode((session.user_id, session.opened_at, name, session.events[:1]))
    return f"file-{xxhash.xxh3_128_hexdigest(content)}"
