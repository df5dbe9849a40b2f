"""Tables that every worker holds whole: the catalogue and the campaigns."""
