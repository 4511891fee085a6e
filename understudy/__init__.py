"""The core that the five parts share: record, spool, lake, policy, config, statistics, CLI."""

__version__ = "0.1.0"
