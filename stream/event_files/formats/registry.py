"""Registry: the names of the formats, and the layout of each format of rows.

* `auto`        the first lines, or the columns, tell the format
* `clickscore`  JSON lines, as on the topic; passed on byte for byte, even if a line is broken
* `taobao`      Taobao UserBehavior: user, item, category, behaviour, seconds; no header
* `rees46`      REES46 stores; a header names the columns
* `csv`         any shop; a header names event_time, event_type, item, category, user, session, price
"""

from typing import Literal

from clickscore.stream.event_files.formats.rees46 import REES46
from clickscore.stream.event_files.formats.rows import RowFormat
from clickscore.stream.event_files.formats.shop_csv import SHOP_CSV
from clickscore.stream.event_files.formats.taobao import TAOBAO

Format = Literal["auto", "clickscore", "taobao", "rees46", "csv"]
"""Name of a format; `auto` finds the format in the first lines."""

FORMATS: dict[str, str] = {
    "auto": "Found in the first lines, or in the names of the columns",
    "clickscore": "JSON lines, as on the topic",
    "taobao": "Taobao UserBehavior: user, item, category, behaviour, seconds; no header",
    "rees46": "REES46 stores; a header names the columns",
    "csv": "Any shop; a header names event_time, event_type, item, category, user, session, price",
}
"""Each format of the program in a line. Other formats are mappings: see `mapping_files`."""

ROW_FORMATS: dict[str, RowFormat] = {"taobao": TAOBAO, "rees46": REES46, "csv": SHOP_CSV}
"""Formats of rows. `clickscore` is not a format of rows: a line of `clickscore` is JSON."""
