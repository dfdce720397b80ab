"""Pipelines of jobs, as Data-Juicer Sandbox writes them: read, checked, run, gone on with."""
