"""Parts of screens: tables, plots, windows, dialogs."""
