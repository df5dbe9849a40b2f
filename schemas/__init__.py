"""What travels: every record that Clickscore reads or writes, as msgspec structs."""
