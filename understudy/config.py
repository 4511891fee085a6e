"""The one YAML file: frozen models, every key with a sentence and, but for the teacher, a default.

Unknown keys are refused with their line and the nearest known key. Secrets are never in the file:
it names environment variables. `understudy/config_file.py` watches a file for those who run long.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from understudy.config_errors import duplicate_key, explain
from understudy.errors import ConfigError

Mode = Literal["teacher", "shadow", "canary", "hybrid", "student"]
Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Level = Annotated[
    Literal["off", "metadata", "full"],
    BeforeValidator(
        lambda value: "off" if value is False else value
    ),  # YAML 1.1 reads off as false
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _base_url(value: str | None) -> str | None:
    if value is None:
        return None
    if not value.startswith(("http://", "https://")):
        raise ValueError(f"{value!r} is no http(s) address; write it like http://localhost:8000/v1")
    return value.rstrip("/")


class Teacher(_Section):
    base_url: str | None = None
    """Address of any OpenAI-compatible API, with its /v1."""
    litellm: str | None = None
    """Instead of base_url: a LiteLLM model such as anthropic/claude-sonnet-5, to be translated."""
    litellm_api_base: str | None = None
    """Address of the provider behind LiteLLM, where it is not the provider's own."""
    api_key_env: str | None = None
    """Environment variable with the teacher's key; without it the caller's own passes through."""
    first_byte_timeout_s: float = Field(default=600, gt=0)
    """Seconds to wait for the teacher's first byte (the SDK's own read timeout is 600)."""

    _url = field_validator("base_url", "litellm_api_base")(_base_url)

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.base_url is None) == (self.litellm is None):
            raise ValueError("give exactly one of base_url (an OpenAI-compatible API) and litellm")
        return self


class Listen(_Section):
    host: str = "127.0.0.1"
    """Address to bind; anything but loopback needs --allow-open until virtual keys are set."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port; 0 takes a free one and prints it."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that share the port by SO_REUSEPORT."""
    max_body_mb: float = Field(default=64, gt=0)
    """A larger request is refused with 413."""
    max_header_kb: float = Field(default=64, gt=0)
    """A larger request head is refused with 431."""
    client_timeout_s: float = Field(default=60, gt=0)
    """Seconds in which a client has to deliver its request's head, and each further piece of it."""
    keep_alive_s: float = Field(default=75, gt=0)
    """Seconds that an idle client connection is kept."""
    drain_s: float = Field(default=30, ge=0)
    """Seconds that running answers get at shutdown."""


class Capture(_Section):
    level: Level = "full"
    """What of an exchange is kept: nothing, everything but the contents, or all of it."""
    fsync: Literal["os", "group", "always"] = "os"
    """os survives kill -9; group and always survive power loss and cost milliseconds."""
    when_full: Literal["reject", "pass_unlogged"] = "reject"
    """When the spool is full: 503 with Retry-After, or serve and count what was not logged."""
    salt_env: str = "UNDERSTUDY_SALT"
    """Environment variable with the key of the user, key and conversation hashes."""


class Spool(_Section):
    path: Path = Path("spool")
    """Folder of the write-ahead log; local disk, beside the proxy."""
    max_gb: float = Field(default=10, gt=0)
    """Cap over all writers of this host; an hour of outage at 100 requests/s is 2.5 GB."""
    min_free_gb: float = Field(default=0.25, ge=0)
    """Free disk space under which the spool counts as full."""


class Kafka(_Section):
    bootstrap_servers: str
    """host:port[,host:port] of the brokers."""
    topic: str = "understudy.frames"
    """Topic of the frames."""
    partitions: int = Field(default=6, ge=1)
    """Partitions, where the topic has to be made."""
    replication: int = Field(default=1, ge=1)
    """Replicas, where the topic has to be made; 3 in production."""


class Collector(_Section):
    flush_rows: int = Field(default=5000, ge=1)
    """Rows that close a Parquet file."""
    flush_s: float = Field(default=60, gt=0)
    """Seconds after which a file is closed with what is there."""
    stream_timeout_s: float = Field(default=3600, gt=0)
    """An exchange without an end for so long in a living spool is stored as unfinished."""


class StudentRef(_Section):
    base_url: str
    """Address of the student's server, with its /v1."""
    model: str = "champion"
    """Served name, or an alias of the registry: champion or candidate."""
    api_key_env: str | None = None
    """Environment variable with the student server's key."""
    first_byte_timeout_s: float = Field(default=10, gt=0)
    """Seconds to the student's first byte; then the teacher answers, unseen by the client."""

    _url = field_validator("base_url")(_base_url)


class Match(_Section):
    model: str | None = None
    """The request's model."""
    metadata: dict[str, str] = {}
    """Entries of the request's metadata object."""
    header: dict[str, str] = {}
    """Request headers (names in lower case)."""
    prompt_hash: str | None = None
    """Hash of the constant part of the prompt, as `understudy logs show` prints it."""


class Shadow(_Section):
    sample: Share = 0.2
    """Share of the exchanges that the student answers unseen."""
    max_in_flight: int = Field(default=8, ge=1)
    """Shadow calls at once; more are dropped and counted."""
    usd_per_day: float | None = Field(default=None, ge=0)
    """Daily budget at the student's price; null means no limit."""


class Canary(_Section):
    weight: Percent = 5
    """Percent of the traffic that the student serves."""
    sticky_by: Literal["user", "conversation", "key"] = "user"
    """What stays on its side while the weight grows; falls back to the conversation."""


class Hybrid(_Section):
    target_quality: Share = 0.98
    """Agreement with the teacher to keep over all of the traffic."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """Confidence with which the calibration has to show it."""


class Gate(_Section):
    scorer: Literal["auto", "exact", "label", "json"] = "auto"
    """How two answers are compared; auto looks at the teacher's answers."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """How much worse than the teacher the student may be and still pass."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """One-sided error rate of the verdict."""
    required: bool = True
    """Whether a mode that serves the student needs a PASS of its gate; leave it on."""


class Guardrails(_Section):
    error_rate: Share = 0.01
    """Student's share of failed calls that is still tolerated."""
    latency_p95_ms: float | None = Field(default=None, gt=0)
    """95th percentile of the student's duration that is still tolerated."""


class Step(_Section):
    """One step of a rollout; exactly one of the keys that name a mode, or a pause."""

    shadow: Share | None = None
    """Shadow this share."""
    setWeight: Percent | None = None
    """Canary at this percent (the key is Argo Rollouts' word)."""
    hybrid: bool | None = None
    """The router decides per request."""
    student: bool | None = None
    """The student serves everything but the hold-out."""
    min_pairs: int = Field(default=0, ge=0)
    """Pairs to see in this step before its verdict counts."""
    pause_s: float = Field(default=0, ge=0)
    """Least seconds in this step."""

    @model_validator(mode="after")
    def _one_mode(self) -> Self:
        given = [self.shadow, self.setWeight, self.hybrid or None, self.student or None]
        if sum(value is not None for value in given) != 1:
            raise ValueError(
                "a step has exactly one of shadow, setWeight, hybrid: true, student: true"
            )
        return self


class Rollout(_Section):
    steps: tuple[Step, ...] = ()
    """The walk; empty means that the file's mode is in force and nothing moves by itself."""
    guardrails: Guardrails = Guardrails()
    """What may never be exceeded, whatever the quality."""
    failure_limit: int = Field(default=1, ge=1)
    """FAIL verdicts in a step that roll back."""

    @model_validator(mode="after")
    def _weights_grow(self) -> Self:
        weights = [s.setWeight for s in self.steps if s.setWeight is not None]
        if weights != sorted(weights):
            raise ValueError(f"setWeight has to grow from step to step, here it is {weights}")
        return self


class Price(_Section):
    input: float = Field(ge=0)
    """US dollars for a million prompt tokens."""
    output: float = Field(ge=0)
    """US dollars for a million completion tokens."""
    cached: float | None = Field(default=None, ge=0)
    """US dollars for a million cached prompt tokens; by default as input."""


class Workload(_Section):
    match: Match = Match()
    """Which requests belong to it; an empty match takes all."""
    student: StudentRef | None = None
    """Where the student is served."""
    mode: Mode = "teacher"
    """Who answers, as long as no rollout runs."""
    shadow: Shadow = Shadow()
    """How much the student answers unseen."""
    canary: Canary = Canary()
    """The split in canary mode."""
    hybrid: Hybrid = Hybrid()
    """What the router has to keep."""
    holdout: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    """Share on which the teacher is asked for ever, so that quality stays measured."""
    on_client_abort: Literal["cancel", "finish"] = "cancel"
    """When the client leaves: close the upstream, or let it finish for the log."""
    capture: Level | None = None
    """Tighter than the general level, for this workload."""
    gate: Gate = Gate()
    """What a student has to prove."""
    rollout: Rollout = Rollout()
    """How it takes over."""
    require_monitor: bool = True
    """Without a living monitor the teacher answers; leave it on."""

    @model_validator(mode="after")
    def _student_named(self) -> Self:
        if (self.mode != "teacher" or self.rollout.steps) and self.student is None:
            wanted = "a rollout" if self.rollout.steps else f"mode {self.mode}"
            raise ValueError(f"{wanted} needs `student: {{base_url: ...}}`")
        return self


class Config(_Section):
    teacher: Teacher
    """Whom the student learns from."""
    listen: Listen = Listen()
    """The proxy's socket and limits."""
    lake: Path = Path("lake")
    """Folder of the Parquet and JSON store."""
    spool: Spool = Spool()
    """The proxy's write-ahead log."""
    capture: Capture = Capture()
    """What is logged and how safely."""
    collector: Collector = Collector()
    """Spool to Parquet."""
    kafka: Kafka | None = None
    """With it frames go spool -> Kafka -> Parquet; without it spool -> Parquet."""
    prices: dict[str, Price] = {}
    """Model (as reported or sent) -> price; an unknown model's cost is null."""
    workloads: dict[str, Workload] = {}
    """Named slices of the traffic; the first that matches takes the request."""
    mlflow_uri: str | None = None
    """Tracking and registry; by default SQLite in the lake."""
    heartbeat_max_age_s: float = Field(default=15, gt=0)
    """Older than this the monitor counts as dead and the teacher answers."""

    @field_validator("workloads")
    @classmethod
    def _names(cls, value: dict[str, Workload]) -> dict[str, Workload]:
        for name in value:
            if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
                raise ValueError(f"workload {name!r}: use letters, digits, - and _")
        return value


def parse(text: str, source: str = "understudy.yaml") -> Config:
    """The file's text as a Config; ConfigError names source, line, key and remedy.

    Relative paths stay relative; `load` resolves them against the file's folder.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{source}{line}: no YAML: {problem}") from error
    except ValueError as error:  # such as a date that no calendar has
        raise ConfigError(f"{source}: no YAML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{source}: no YAML: nested too deep") from None
    twice = duplicate_key(node)
    if twice:
        raise ConfigError(f"{source}:{twice}; keep one of the two")
    if data is None:
        raise ConfigError(f"{source}: empty; write at least `teacher: {{base_url: https://...}}`")
    if not isinstance(data, dict):
        raise ConfigError(
            f"{source}:1: {str(data)[:40]!r} is no section; write `teacher: {{base_url: ...}}`"
        )
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{source}:{explain(error, node, Config)}") from error


def load(path: Path) -> Config:
    """Read and parse `path`; relative folders are taken from where the file lies."""
    return load_text(read(path), path)


def read(path: Path) -> str:
    """The file's text; ConfigError if it cannot be read."""
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; name another with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {path}: no UTF-8 text; save it as UTF-8") from error


def load_text(text: str, path: Path) -> Config:
    """As `load`, for a text that was read from `path` already."""
    config = parse(text, str(path))
    root = path.resolve().parent
    spool = config.spool.model_copy(update={"path": root / config.spool.path})
    return config.model_copy(update={"lake": root / config.lake, "spool": spool})


def config_hash(text: str) -> str:
    """16 hex digits that name a version of the file."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
