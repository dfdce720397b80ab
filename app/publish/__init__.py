"""What goes out into the world: a folder with recipe, rows or their ids, data card, Croissant and provenance."""
