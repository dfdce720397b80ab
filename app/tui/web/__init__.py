"""The UI in a browser, on this machine only."""
