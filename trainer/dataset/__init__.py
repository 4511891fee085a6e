"""From the log to a dataset: select, rules, dedup, split, contamination, manifest."""
