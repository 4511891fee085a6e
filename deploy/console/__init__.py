"""The console: a web page for people, rendered on the server, read-only, without a build step.

`control` reads the lake's documents, `traffic` the Parquet log through DuckDB, `workload` makes the
view models of both, `app` serves them. Works offline; nothing here writes to the lake.
"""
