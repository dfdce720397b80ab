"""Rows and operators: reading, statistics, pools, mappers, recipes."""
