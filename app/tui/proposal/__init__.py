"""Proposals in the UI: the form to suggest one, and the text of one."""
