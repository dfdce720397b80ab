"""Trials as values."""

from __future__ import annotations

FRESH = 1_000  # seeds from here on confirm; the ranking never reads them
