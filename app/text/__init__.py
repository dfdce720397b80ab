"""How records read on a terminal."""
