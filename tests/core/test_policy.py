"""Compiling the policy is pure and refuses what is unproved; versions are written by one only."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from understudy.config import parse
from understudy.documents import Aliases
from understudy.errors import ConfigError, LakeError
from understudy.lake import Lake
from understudy.policy import (
    Override,
    Policy,
    PolicyStore,
    WorkloadPolicy,
    compile_policy,
    same_routing,
)

STUDENT = "student: {base_url: 'http://s:1/v1/', model: s1, api_key_env: KEY}"
ALIASES = Aliases(candidate="c1", champion="c0")


def compiled(workload: str, **state: Any) -> WorkloadPolicy:
    config = parse(f"teacher: {{base_url: 'http://t:1/v1'}}\nworkloads: {{w: {{{workload}}}}}\n")
    given: dict[str, Any] = {
        "config_hash": "h", "overrides": {}, "aliases": {}, "passed": {}, "routers": {},
    }  # fmt: skip
    return compile_policy(config, **(given | state)).workloads["w"]


def test_what_the_file_says_is_what_the_policy_has() -> None:
    found = compiled(
        f"mode: canary, {STUDENT}, canary: {{weight: 7, sticky_by: key}}, holdout: 0.1, "
        "match: {model: gpt, metadata: {task: t}, header: {X-Team: a}, prompt_hash: p}, "
        "shadow: {sample: 0.3, max_in_flight: 2, usd_per_day: 1}, on_client_abort: finish, "
        "require_monitor: false",
        passed={"w": frozenset({"s1"})},
    )
    assert found.mode == "canary"
    assert found.owner == "file"
    assert (found.weight, found.sticky_by, found.holdout) == (7, "key", 0.1)
    assert (found.match_model, found.match_metadata) == ("gpt", {"task": "t"})
    assert (found.match_header, found.match_prompt_hash) == ({"x-team": "a"}, "p")
    assert found.student is not None
    assert (found.student.base_url, found.student.model) == ("http://s:1/v1", "s1")
    assert found.student.api_key_env == "KEY"
    assert (found.shadow_sample, found.shadow_max_in_flight) == (0.3, 2)
    assert found.shadow_usd_per_day == 1
    assert (found.on_client_abort, found.require_monitor) == ("finish", False)


@pytest.mark.parametrize("mode", ["canary", "hybrid", "student"])
def test_no_serving_mode_without_a_passed_gate(mode: str) -> None:
    with pytest.raises(ConfigError, match=f"mode {mode} would serve s1, whose gate has not passed"):
        compiled(f"mode: {mode}, {STUDENT}", passed={"w": frozenset({"s2"})})
    assert compiled(f"mode: shadow, {STUDENT}").mode == "shadow"
    routed = {"w": ("key", 0.7)}
    proved = compiled(f"mode: {mode}, {STUDENT}", passed={"w": frozenset({"s1"})}, routers=routed)
    waived = compiled(f"mode: {mode}, {STUDENT}, gate: {{required: false}}", routers=routed)
    assert proved == waived
    assert proved.mode == mode


def test_hybrid_needs_its_router() -> None:
    state = {"passed": {"w": frozenset({"s1"})}}
    with pytest.raises(ConfigError, match="no router for s1; fit one with `understudy router`"):
        compiled(f"mode: hybrid, {STUDENT}", **state)
    found = compiled(f"mode: hybrid, {STUDENT}", routers={"w": ("k", 0.7)}, **state)
    assert (found.router, found.router_threshold) == ("k", 0.7)


@pytest.mark.parametrize(("alias", "name"), [("champion", "c0"), ("candidate", "c1")])
def test_aliases_become_names(alias: str, name: str) -> None:
    workload = f"mode: shadow, student: {{base_url: 'http://s:1/v1', model: {alias}}}"
    found = compiled(workload, aliases={"w": ALIASES})
    assert found.student is not None
    assert found.student.model == name
    with pytest.raises(ConfigError, match=f"wants the {alias}, and there is none"):
        compiled(workload)


def test_a_teacher_needs_no_champion() -> None:
    assert compiled("student: {base_url: 'http://s:1/v1'}").student is None


def test_an_override_decides_mode_and_numbers_and_asks_no_gate() -> None:
    override = Override(mode="canary", student="c1", weight=25, shadow_sample=0.5, note="why")
    found = compiled(f"mode: teacher, {STUDENT}, canary: {{weight: 1}}", overrides={"w": override})
    assert (found.mode, found.weight, found.shadow_sample) == ("canary", 25, 0.5)
    assert (found.owner, found.note) == ("controller", "why")
    assert found.student is not None
    assert found.student.model == "c1"


def test_a_teacher_override_stands_against_any_file() -> None:
    back = {"w": Override(mode="teacher", student="s1")}
    assert compiled(f"mode: student, {STUDENT}", overrides=back).mode == "teacher"


def test_an_override_for_a_workload_that_lost_its_student_is_refused() -> None:
    override = {"w": Override(mode="canary", student="s1", weight=1)}
    with pytest.raises(ConfigError, match="mode canary has no student"):
        compiled("mode: teacher", overrides=override)


def test_a_workload_may_only_tighten_the_capture() -> None:
    levels = ("off", "metadata", "full")
    for general in levels:
        for own in levels:
            text = (
                f"teacher: {{base_url: 'http://t:1/v1'}}\ncapture: {{level: {general}}}\n"
                f"workloads: {{w: {{capture: {own}}}}}\n"
            )
            policy = compile_policy(
                parse(text), config_hash="", overrides={}, aliases={}, passed={}, routers={}
            )
            wanted = min(general, own, key=levels.index)
            assert policy.workloads["w"].capture == wanted


def test_the_salt_belongs_to_the_workload_and_stays() -> None:
    assert compiled("mode: teacher").salt == compiled(f"mode: shadow, {STUDENT}").salt != ""


def test_routing_is_the_same_whatever_version_author_and_time_say() -> None:
    one = Policy(version=1, workloads={"w": WorkloadPolicy()}, config_hash="h", at=1, author="a")
    two = Policy(version=2, workloads={"w": WorkloadPolicy()}, config_hash="h", at=2, author="b")
    assert same_routing(one, two)
    assert not same_routing(one, Policy(workloads={"w": WorkloadPolicy(weight=1)}, config_hash="h"))
    assert not same_routing(one, Policy(workloads=one.workloads, config_hash="other"))


def test_the_order_of_workloads_is_routing() -> None:
    first, second = WorkloadPolicy(match_model="m"), WorkloadPolicy()
    one = Policy(workloads={"a": first, "b": second})
    assert not same_routing(one, Policy(workloads={"b": second, "a": first}))


@pytest.fixture
def store(tmp_path: Path) -> PolicyStore:
    return PolicyStore(Lake(tmp_path))


def test_without_a_policy_there_is_none(store: PolicyStore) -> None:
    assert store.version() == 0
    assert store.latest() is None
    assert store.latest(than=0) is None


def test_each_version_is_written_by_one_and_the_highest_is_in_force(store: PolicyStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: store.publish(Policy(), 0, f"a{n}", ""), range(8)))
    winner = [policy for policy in won if policy is not None]
    assert [policy.version for policy in winner] == [1]
    assert store.latest() == winner[0]
    assert store.publish(Policy(config_hash="x"), 1, "b", "because") is not None
    found = store.latest(than=1)
    assert found is not None
    assert (found.version, found.config_hash, found.reason) == (2, "x", "because")
    assert store.latest(than=2) is None


def test_a_reader_that_knows_a_version_finds_the_newest_without_listing(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    store = PolicyStore(lake)
    for version in range(30):
        store.publish(Policy(), version, "", "")

    class Listless(Lake):
        def keys(self, prefix: str, suffix: str = "") -> Any:
            raise AssertionError("listed")

    reader = PolicyStore(Listless(tmp_path))
    assert reader.version(known=3) == 30
    assert reader.latest(than=30) is None


def test_a_damaged_version_is_an_error_that_the_next_one_heals(
    store: PolicyStore, tmp_path: Path
) -> None:
    store.publish(Policy(), 0, "", "")
    (tmp_path / "control/policy/0000000002.json").write_text("{")
    with pytest.raises(LakeError, match=r"no policy: .*the next version replaces it"):
        store.latest(than=1)
    assert store.publish(Policy(), store.version(), "", "") is not None
    found = store.latest(than=1)
    assert found is not None
    assert found.version == 3
