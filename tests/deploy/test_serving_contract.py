"""The HTTP contract of a student server, kept by vLLM and by the in-process server alike."""

import json
import math
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from safetensors.numpy import load_file, save_file

from deploy.serving.client import StudentServer
from deploy.serving.roster import Roster
from tests.deploy.conftest import FACTS, OTHER_FACTS, Server, Tiny
from understudy.base_model import base_hash
from understudy.errors import ServingError

pytestmark = pytest.mark.timeout(900)  # vLLM starts in 50 s on an idle machine, 160 s on a full one

STUDENTS = {"colour-0001": FACTS, "colour-0002": OTHER_FACTS}
CASES = [(name, asked, said) for name, facts in STUDENTS.items() for asked, said in facts.items()]


@pytest.fixture
def client(served: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def chat(model: str, text: str, **more: object) -> dict[str, object]:
    message = {"role": "user", "content": text}
    return {"model": model, "messages": [message], "temperature": 0, "max_tokens": 20, **more}


def test_base_and_students_are_listed(client: openai.OpenAI, tiny: Tiny) -> None:
    assert [card.id for card in client.models.list()][:3] == [str(tiny.base), *tiny.students]


@pytest.mark.parametrize(("model", "asked", "said"), CASES)
def test_each_student_gives_its_own_answer_and_stops(
    client: openai.OpenAI, model: str, asked: str, said: str
) -> None:
    answer = client.chat.completions.create(**chat(model, asked))
    assert answer.model == model
    assert answer.choices[0].message.content == said
    assert answer.choices[0].finish_reason == "stop"


def test_the_base_answers_otherwise(client: openai.OpenAI, tiny: Tiny) -> None:
    answer = client.chat.completions.create(**chat(str(tiny.base), "apple"))
    assert answer.choices[0].message.content not in ("red", "green")


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI, tiny: Tiny) -> None:
    request = chat(str(tiny.base), "grass")
    whole = client.chat.completions.create(**request)
    chunks = list(client.chat.completions.create(**request, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_ends_a_stream_when_it_is_asked_for(client: openai.OpenAI) -> None:
    request = chat("colour-0001", "sky")
    whole = client.chat.completions.create(**request).usage
    chunks = list(
        client.chat.completions.create(
            **request, stream=True, stream_options={"include_usage": True}
        )
    )
    last = chunks[-1]
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (
        whole.prompt_tokens,
        whole.completion_tokens,
    )
    assert whole.total_tokens == whole.prompt_tokens + whole.completion_tokens


def test_max_tokens_cuts(client: openai.OpenAI, tiny: Tiny) -> None:
    answer = client.chat.completions.create(**chat(str(tiny.base), "sky", max_tokens=3))
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_a_stop_string_cuts_and_is_left_out(client: openai.OpenAI) -> None:
    request = chat("colour-0001", "grass", stop=["een"])
    whole = client.chat.completions.create(**request).choices[0]
    chunks = list(client.chat.completions.create(**request, stream=True))
    assert (whole.message.content, whole.finish_reason) == ("gr", "stop")
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "gr"


def test_logprobs_describe_the_greedy_choice(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(
        **chat("colour-0001", "apple", logprobs=True, top_logprobs=3)
    ).choices[0]
    first = choice.logprobs.content[0]
    assert first.token == "red"
    assert bytes(first.bytes) == b"red"
    assert first.top_logprobs[0].token == "red"
    assert first.logprob == pytest.approx(first.top_logprobs[0].logprob)
    assert len(first.top_logprobs) == 3
    assert sum(math.exp(other.logprob) for other in first.top_logprobs) <= 1 + 1e-4


def test_teacher_forced_logprobs_are_the_trainers(served: Server, tiny: Tiny) -> None:
    for name, folder in tiny.students.items():
        for item in json.loads((folder / "probe.json").read_text())["items"]:
            prompt, completion = item["prompt_ids"], item["completion_ids"]
            for model, key in ((name, "logprobs"), (str(tiny.base), "base_logprobs")):
                body = {
                    "model": model,
                    "prompt": prompt + completion,
                    "max_tokens": 1,
                    "prompt_logprobs": 0,
                }
                answer = httpx.post(f"{served.url}/v1/completions", json=body).json()
                rows = answer["choices"][0]["prompt_logprobs"]
                assert rows[0] is None
                values = [
                    r[str(i)]["logprob"]
                    for i, r in zip(completion, rows[len(prompt) :], strict=True)
                ]
                assert values == pytest.approx(item[key], abs=0.01)


def test_the_server_renders_prompts_as_the_trainer_did(client: openai.OpenAI, tiny: Tiny) -> None:
    items = json.loads((tiny.students["colour-0001"] / "probe.json").read_text())["items"]
    for asked, item in zip(FACTS, items, strict=True):
        answer = client.chat.completions.create(**chat("colour-0001", asked))
        assert answer.usage.prompt_tokens == len(item["prompt_ids"])
        assert answer.usage.completion_tokens == len(item["completion_ids"])


def test_several_choices_are_told_apart(client: openai.OpenAI, tiny: Tiny) -> None:
    request = chat(str(tiny.base), "apple", n=3, max_tokens=6) | {"temperature": 1, "seed": 5}
    whole = client.chat.completions.create(**request).choices
    texts = dict.fromkeys(range(3), "")
    for chunk in client.chat.completions.create(**request, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert [choice.index for choice in whole] == [0, 1, 2]
    assert len({choice.message.content for choice in whole}) > 1


def test_a_seed_repeats_a_sampled_answer(client: openai.OpenAI, tiny: Tiny) -> None:
    request = chat(str(tiny.base), "coal", seed=11) | {"temperature": 1, "top_p": 0.9}
    texts = {client.chat.completions.create(**request).choices[0].message.content for _ in range(3)}
    assert len(texts) == 1


def test_text_completions_take_text_and_token_ids(client: openai.OpenAI, tiny: Tiny) -> None:
    item = json.loads((tiny.students["colour-0002"] / "probe.json").read_text())["items"][0]
    by_ids = client.completions.create(
        model="colour-0002", prompt=item["prompt_ids"], temperature=0, logprobs=1
    )
    assert by_ids.choices[0].text == "green"
    assert by_ids.choices[0].logprobs.token_logprobs == pytest.approx(item["logprobs"], abs=0.01)
    text = "<|im_start|>user\napple<|im_end|>\n<|im_start|>assistant\n"
    both = client.completions.create(model="colour-0002", prompt=[text, text], temperature=0)
    assert [choice.text for choice in both.choices] == ["green", "green"]


def test_a_prompt_beyond_the_context_is_a_400(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 256 tokens"):
        client.chat.completions.create(**chat("colour-0001", "apple " * 300))
    with pytest.raises(openai.BadRequestError, match="256"):
        client.chat.completions.create(**chat("colour-0001", "apple", max_tokens=1000))


def test_an_unknown_model_is_a_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.chat.completions.create(**chat("nobody", "apple"))


@pytest.mark.parametrize(
    "body", [b"{", b'{"model": "colour-0001"}', b'{"model": "colour-0001", "messages": 1}']
)
def test_a_malformed_request_is_a_client_error(served: Server, body: bytes) -> None:
    answer = httpx.post(
        f"{served.url}/v1/chat/completions",
        content=body,
        headers={"content-type": "application/json"},
    )
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["message"]


def test_adapters_come_and_go_while_the_server_runs(served: Server, tiny: Tiny) -> None:
    with httpx.Client(base_url=served.url, timeout=60) as http:
        folder = str(tiny.students["colour-0002"])
        load = {"lora_name": "late", "lora_path": folder}
        assert http.post("/v1/load_lora_adapter", json=load).status_code == 200
        assert http.post("/v1/load_lora_adapter", json=load).status_code == 400
        said = http.post("/v1/chat/completions", json=chat("late", "apple")).json()
        assert said["choices"][0]["message"]["content"] == "green"
        name = {"lora_name": "late"}
        assert http.post("/v1/unload_lora_adapter", json=name).status_code == 200
        assert http.post("/v1/unload_lora_adapter", json=name).status_code == 404
        assert http.post("/v1/chat/completions", json=chat("late", "apple")).status_code == 404


def test_requests_at_once_do_not_disturb_one_another(
    client: openai.OpenAI, served: Server, tiny: Tiny
) -> None:
    base = str(tiny.base)
    alone = client.chat.completions.create(**chat(base, "sky")).choices[0].message.content
    wanted = CASES * 6
    if served.engine != "vllm":  # on a CPU it mixes an adapter into the base's rows (vllm#48421)
        wanted += [(base, "sky", alone)] * 8

    def ask(case: tuple[str, str, str]) -> str | None:
        made = client.chat.completions.create(**chat(case[0], case[1]))
        return made.choices[0].message.content

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, wanted)) == [said for _, _, said in wanted]


def test_a_client_that_leaves_midway_harms_nobody(client: openai.OpenAI, tiny: Tiny) -> None:
    request = chat(str(tiny.base), "sky", max_tokens=200)
    for _ in range(4):
        with client.chat.completions.create(**request, stream=True) as stream:
            next(iter(stream))
    answer = client.chat.completions.create(**chat("colour-0001", "apple"))
    assert answer.choices[0].message.content == "red"


def test_health_is_well(served: Server) -> None:
    assert httpx.get(f"{served.url}/health").status_code == 200


def test_an_emptied_adapter_is_refused_and_a_sound_one_served(
    served: Server, tiny: Tiny, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny.students["colour-0001"], tmp_path / "emptied")
    adapter = folder / "adapter_model.safetensors"
    tensors = load_file(adapter)
    save_file({n: t * 0 if "lora_B" in n else t for n, t in tensors.items()}, adapter)
    server = StudentServer(served.url)
    roster = Roster(server, tiny.base, base_hash(tiny.base), dtype="float32", max_rank=8)
    before = server.models()
    with pytest.raises(ServingError, match="the base answers in its place"):
        roster.admit("emptied", folder)
    assert server.models() == before
    assert roster.admit("again", tiny.students["colour-0001"]).failure is None
    roster.dismiss("again")
    server.close()
