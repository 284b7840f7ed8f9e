"""The command line: every verb of the pipeline, each importing its packages only when it runs."""
