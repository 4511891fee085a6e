"""The file: what is refused, in which words, and what is taken."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.config import Config, config_hash, load, parse
from understudy.errors import ConfigError

TEACHER = "teacher: {base_url: 'https://api.example.com/v1'}\n"
STUDENT = "student: {base_url: 'http://localhost:8000/v1'}"


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as found:
        parse(text, "u.yaml")
    assert "\n" not in str(found.value)
    return str(found.value)


def test_the_teachers_address_is_all_that_is_needed() -> None:
    config = parse(TEACHER)
    assert config.teacher.base_url == "https://api.example.com/v1"
    assert config.listen.host == "127.0.0.1"
    assert config.workloads == {}


def test_every_key_of_the_file_has_a_sentence() -> None:
    def without(model: type) -> list[str]:
        found = []
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            if not field.description:
                found.append(f"{model.__name__}.{name}")
            for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if hasattr(inner, "model_fields"):
                    found += without(inner)
        return found

    assert without(Config) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("techer: {}\n", "u.yaml:1: unknown key 'techer'; did you mean 'teacher'?"),
        (
            TEACHER + "listen:\n  host: 127.0.0.1\n  prot: 1\n",
            "u.yaml:4: unknown key 'listen.prot'; did you mean 'port'?",
        ),
        (
            TEACHER + "capture: {zzz: 1}\n",
            "u.yaml:2: unknown key 'capture.zzz'; known here: fsync, level, salt_env, when_full",
        ),
        (
            TEACHER + "workloads:\n  a:\n    canary:\n      wieght: 5\n",
            "u.yaml:5: unknown key 'workloads.a.canary.wieght'; did you mean 'weight'?",
        ),
        (
            TEACHER + f"workloads:\n  a:\n    {STUDENT}\n    rollout:\n      steps:\n"
            "      - {shadow: 1}\n      - {setWieght: 5}\n",
            "u.yaml:8: unknown key 'workloads.a.rollout.steps.1.setWieght'; "
            "did you mean 'setWeight'?",
        ),
        (
            TEACHER + "prices:\n  m: {inptu: 1}\n",
            "u.yaml:3: unknown key 'prices.m.inptu'; did you mean 'input'?",
        ),
        ("listen: {port: 1}\n", "u.yaml:1: 'teacher' is missing: whom the student learns from"),
        ("", "u.yaml: empty; write at least `teacher: {base_url: https://...}`"),
        ("hello", "u.yaml:1: 'hello' is no section; write `teacher: {base_url: ...}`"),
        (
            "teacher: {base_url: api.example.com}\n",
            "u.yaml:1: teacher.base_url: 'api.example.com' is no http(s) address; write it like "
            "http://localhost:8000/v1",
        ),
        (
            "teacher: {}\n",
            "u.yaml:1: teacher: give exactly one of base_url (an OpenAI-compatible API) and "
            "litellm",
        ),
        (
            TEACHER + "listen:\n  port: 99999\n",
            "u.yaml:3: listen.port: Input should be less than or equal to 65535 (here 99999)",
        ),
        (
            TEACHER + f"workloads:\n  a: {{{STUDENT}, canary: {{weight: 101}}}}\n",
            "u.yaml:3: workloads.a.canary.weight: Input should be less than or equal to 100 "
            "(here 101)",
        ),
        (
            TEACHER + "workloads: {a: {mode: canary}}\n",
            "u.yaml:2: workloads.a: mode canary needs `student: {base_url: ...}`",
        ),
        (
            TEACHER + "workloads: {a: {rollout: {steps: [{shadow: 1}]}}}\n",
            "u.yaml:2: workloads.a: a rollout needs `student: {base_url: ...}`",
        ),
        (
            TEACHER + f"workloads:\n  a:\n    {STUDENT}\n    rollout:\n      steps:\n"
            "      - {setWeight: 25}\n      - {setWeight: 5}\n",
            "u.yaml:5: workloads.a.rollout: setWeight has to grow from step to step, here it is "
            "[25.0, 5.0]",
        ),
        (
            TEACHER + f"workloads: {{a: {{{STUDENT}, rollout: {{steps: [{{pause_s: 5}}]}}}}}}\n",
            "u.yaml:2: workloads.a.rollout.steps.0: a step has exactly one of shadow, setWeight, "
            "hybrid: true, student: true",
        ),
        (
            TEACHER + "workloads: {'a/b': {}}\n",
            "u.yaml:2: workloads: workload 'a/b': use letters, digits, - and _",
        ),
        (
            TEACHER + "workloads:\n  a: {}\n  b: {}\n  a: {mode: shadow}\n",
            "u.yaml:5: 'a' stands here and in line 3; keep one of the two",
        ),
    ],
)
def test_what_is_wrong_is_said_with_line_value_and_remedy(text: str, message: str) -> None:
    assert refused(text) == message


def test_text_that_is_no_yaml_names_the_line() -> None:
    assert refused(TEACHER + "lake: [\n").startswith("u.yaml:3: no YAML: ")
    assert "month must be in 1..12" in refused(TEACHER + "lake: 2024-99-99\n")
    assert "u.yaml:2: " in refused(TEACHER + "? [1]\n: 2\n")
    assert refused(TEACHER + "7: 2\n").startswith("u.yaml:2: ")
    assert "too deep" in refused("[" * 2000)


def test_off_needs_no_quotes() -> None:
    assert parse(TEACHER + "capture: {level: off}\n").capture.level == "off"
    config = parse(TEACHER + "workloads: {a: {capture: off}}\n")
    assert config.workloads["a"].capture == "off"


def test_folders_are_taken_from_where_the_file_lies(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "u.yaml"
    file.write_text(TEACHER + "lake: ../lake\nspool: {path: /var/spool/x}\n")
    config = load(file)
    assert config.lake.resolve() == tmp_path / "lake"
    assert config.spool.path == Path("/var/spool/x")


def test_a_file_that_cannot_be_read_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory; name another with --config"):
        load(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"teacher: {base_url: '\xe9'}")
    with pytest.raises(ConfigError, match="save it as UTF-8"):
        load(tmp_path / "latin.yaml")


def test_a_hash_names_the_text() -> None:
    assert config_hash(TEACHER) == config_hash(TEACHER) != config_hash(TEACHER + " ")
    assert len(config_hash("")) == 16


@given(st.text(alphabet="teacher: {}[]'-&*!|>\n\t#0a", max_size=60))
def test_no_text_gives_anything_but_a_config_or_a_line_of_reason(text: str) -> None:
    try:
        message = str(parse(text).teacher.base_url)
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message
