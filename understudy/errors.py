"""The error tree, named by the boundary that was crossed.

    UnderstudyError
    ├── ConfigError     the YAML file or a policy document
    ├── UpstreamError   a teacher or student over HTTP
    ├── SpoolError      the local write-ahead log
    ├── LakeError       Parquet, control documents, views
    ├── DatasetError    selection, rules, splits
    ├── TrainingError   base model, adapter, loop
    ├── GateError       evaluation, verdicts, rollout
    └── ServingError    vLLM, the in-process server, the registry

A message holds the offending value and the remedy: it is printed as one line to a person.
"""


class UnderstudyError(Exception):
    """Base of every error that is meant for a person; the CLI prints it as one line, status 1."""


class ConfigError(UnderstudyError):
    """The configuration or a policy document cannot be used; the old one stays in force."""


class UpstreamError(UnderstudyError):
    """A teacher or student did not answer as HTTP requires."""


class SpoolError(UnderstudyError):
    """The write-ahead log cannot take or give a frame."""


class LakeError(UnderstudyError):
    """A document or table of the lake is missing, torn or already there."""


class DatasetError(UnderstudyError):
    """No dataset can be made of what was selected."""


class TrainingError(UnderstudyError):
    """A base model, an adapter or a training run is unusable."""


class GateError(UnderstudyError):
    """A comparison cannot be judged, or a verdict forbids the step."""


class ServingError(UnderstudyError):
    """A student cannot be served, or the registry has no such student."""
