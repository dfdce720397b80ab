"""What is trained and how it is judged, one folder a task."""
