"""Kills, stops, locks, full disks and damaged files, and what a study lost by them."""
