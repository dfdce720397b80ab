"""One plug-in of each kind. Each module is imported only when a study or a pipeline names what it gives."""
