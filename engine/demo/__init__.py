"""The demo worlds: data with planted defects, made anew on each machine."""
