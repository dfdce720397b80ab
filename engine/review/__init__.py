"""Who decides: approve, reject, hold, edit, undo. The agent may not import it."""
