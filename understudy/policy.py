"""The policy: the versioned document that the proxy obeys.

`compile_policy` turns the operator's file, the registry's aliases, the gates and a running rollout
into one document; it is pure. `PolicyStore` keeps the versions in the lake: the highest one is in
force, and a version is written once by whoever is first (compare-and-swap by put-if-absent).
"""

import hashlib
import re
import time
from collections.abc import Mapping
from typing import Literal

import msgspec

from understudy import documents
from understudy.config import Config, Mode, Workload
from understudy.errors import ConfigError, LakeError
from understudy.lake import Lake

_FOLDER = "control/policy"
SERVING_MODES = ("canary", "hybrid", "student")


class Student(msgspec.Struct, frozen=True, kw_only=True):
    """Where a workload's student answers. `model` is the concrete served name, no alias."""

    base_url: str
    model: str
    api_key_env: str | None = None
    first_byte_timeout_s: float = 10.0


class WorkloadPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How one workload's requests are answered. `weight` in percent, shares in [0, 1]."""

    mode: Mode = "teacher"
    owner: Literal["file", "controller"] = "file"
    match_model: str | None = None
    match_metadata: dict[str, str] = {}
    match_header: dict[str, str] = {}
    match_prompt_hash: str | None = None
    student: Student | None = None
    shadow_sample: float = 0.0
    shadow_max_in_flight: int = 8
    shadow_usd_per_day: float | None = None
    weight: float = 0.0
    sticky_by: Literal["user", "conversation", "key"] = "user"
    salt: str = ""
    holdout: float = 0.0
    router: str | None = None
    router_threshold: float = 1.0
    on_client_abort: Literal["cancel", "finish"] = "cancel"
    capture: Literal["off", "metadata", "full"] = "full"
    require_monitor: bool = True
    note: str = ""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """All workloads in the order in which they are matched. `at` in Unix seconds."""

    version: int = 0
    workloads: dict[str, WorkloadPolicy] = {}
    config_hash: str = ""
    at: float = 0.0
    author: str = "file"
    reason: str = ""


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """What a running rollout decides about its workload, instead of the file."""

    mode: Mode
    student: str
    weight: float = 0.0
    shadow_sample: float = 0.0
    note: str = ""


def compile_policy(
    config: Config,
    *,
    config_hash: str,
    overrides: Mapping[str, Override],
    aliases: Mapping[str, documents.Aliases],
    passed: Mapping[str, frozenset[str]],
    routers: Mapping[str, tuple[str, float]],
) -> Policy:
    """The file and the state of gates and rollouts as a policy (version 0, unpublished).

    `passed[workload]` are the students that passed; `routers[workload]` is (key, threshold) of one
    fitted for the workload's student. ConfigError where a mode lacks its student, gate or router.
    """
    compiled = {}
    for name, workload in config.workloads.items():
        compiled[name] = _compile(
            name,
            workload,
            config,
            overrides.get(name),
            aliases.get(name, documents.Aliases()),
            passed.get(name, frozenset()),
            routers.get(name),
        )
    return Policy(workloads=compiled, config_hash=config_hash, at=time.time())


def _compile(
    name: str,
    workload: Workload,
    config: Config,
    override: Override | None,
    alias: documents.Aliases,
    passed: frozenset[str],
    router: tuple[str, float] | None,
) -> WorkloadPolicy:
    mode: Mode = override.mode if override else workload.mode
    student = _student(name, workload, mode, override, alias)
    if mode != "teacher" and student is None:
        raise ConfigError(
            f"workload {name}: mode {mode} has no student; give `student: {{base_url: ...}}`"
        )
    if student and mode in SERVING_MODES and not override:
        _check_gate(name, workload, mode, student.model, passed)
    if student and mode == "hybrid" and router is None:
        raise ConfigError(
            f"workload {name}: mode hybrid has no router for {student.model}; fit one with "
            f"`understudy router`"
        )
    levels = ("off", "metadata", "full")
    own = workload.capture or config.capture.level
    return WorkloadPolicy(
        mode=mode,
        owner="controller" if override else "file",
        match_model=workload.match.model,
        match_metadata=workload.match.metadata,
        match_header={key.lower(): value for key, value in workload.match.header.items()},
        match_prompt_hash=workload.match.prompt_hash,
        student=student,
        shadow_sample=override.shadow_sample if override else workload.shadow.sample,
        shadow_max_in_flight=workload.shadow.max_in_flight,
        shadow_usd_per_day=workload.shadow.usd_per_day,
        weight=override.weight if override else workload.canary.weight,
        sticky_by=workload.canary.sticky_by,
        salt=hashlib.sha256(name.encode()).hexdigest()[:16],
        holdout=workload.holdout,
        router=router[0] if router else None,
        router_threshold=router[1] if router else 1.0,
        on_client_abort=workload.on_client_abort,
        capture=min(own, config.capture.level, key=levels.index),
        require_monitor=workload.require_monitor,
        note=override.note if override else "",
    )


def student_name(
    workload: Workload, override: Override | None, alias: documents.Aliases
) -> str | None:
    """The served name of the student that is wanted, aliases resolved; None where there is none."""
    if workload.student is None:
        return None
    wanted = override.student if override else workload.student.model
    known = {"champion": alias.champion, "candidate": alias.candidate}
    return known.get(wanted, wanted)


def _student(
    name: str,
    workload: Workload,
    mode: Mode,
    override: Override | None,
    alias: documents.Aliases,
) -> Student | None:
    if workload.student is None:
        return None
    model = student_name(workload, override, alias)
    if model is None:
        if mode == "teacher":
            return None
        wanted = override.student if override else workload.student.model
        raise ConfigError(
            f"workload {name}: mode {mode} wants the {wanted}, and there is none; register one "
            f"with `understudy students register`"
        )
    return Student(
        base_url=workload.student.base_url,
        model=model,
        api_key_env=workload.student.api_key_env,
        first_byte_timeout_s=workload.student.first_byte_timeout_s,
    )


def _check_gate(
    name: str, workload: Workload, mode: Mode, model: str, passed: frozenset[str]
) -> None:
    if workload.gate.required and model not in passed:
        raise ConfigError(
            f"workload {name}: mode {mode} would serve {model}, whose gate has not passed; run "
            f"`understudy evaluate`, or set `gate: {{required: false}}` and answer for it"
        )


class PolicyStore:
    """The policy's versions in the lake: numbered from 1 without holes, none is ever changed."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def version(self, known: int = 0) -> int:
        """The highest version; from a `known` one on a look per new version, not a listing."""
        if known <= 0:
            known = max((_version(key) for key in self._lake.keys(_FOLDER, ".json")), default=0)
        while self._lake.path(_key(known + 1)).exists():
            known += 1
        return known

    def latest(self, than: int = -1) -> Policy | None:
        """The policy in force if its version is above `than`, else None; LakeError if damaged."""
        version = self.version(than)
        return self.read(version) if version > max(than, 0) else None

    def read(self, version: int) -> Policy:
        """One version; LakeError if it is not there or damaged."""
        data = self._lake.get(_key(version))
        try:
            return msgspec.json.decode(data or b"", type=Policy)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            path = self._lake.path(_key(version))
            raise LakeError(f"{path}: no policy: {error}; the next version replaces it") from error

    def publish(self, policy: Policy, over: int, author: str, reason: str) -> Policy | None:
        """Make `policy` version `over + 1`; None if somebody else was first (read, try again)."""
        numbered = msgspec.structs.replace(
            policy, version=over + 1, author=author, reason=reason, at=time.time()
        )
        data = msgspec.json.encode(numbered)
        return numbered if self._lake.put_if_absent(_key(numbered.version), data) else None


def same_routing(one: Policy, other: Policy) -> bool:
    """Whether two policies route alike: then publishing the second would say nothing new.

    The order of the workloads is part of it, since the first that matches takes the request.
    """
    alike = list(one.workloads.items()) == list(other.workloads.items())
    return alike and one.config_hash == other.config_hash


def _key(version: int) -> str:
    return f"{_FOLDER}/{version:010d}.json"


def _version(key: str) -> int:
    found = re.search(r"(\d+)\.json$", key)
    assert found, key
    return int(found.group(1))
