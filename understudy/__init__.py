"""The core that the five parts share: record, spool, lake, policy, config, statistics, errors, CLI."""

__version__ = "0.1.0"
