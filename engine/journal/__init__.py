"""The database. All SQL stands here; everybody else gets frozen records."""
