"""What a person sets for the UI: keys, themes, defaults."""
