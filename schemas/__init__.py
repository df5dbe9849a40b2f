"""Records: everything that Clickscore reads or writes, as msgspec structs."""
