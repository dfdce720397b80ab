"""Readers of a dataset's files, one file format a module, behind one contract."""
