"""The built-in task: its answers follow from the text alone, and the same seed writes the same."""

import json
import random
from collections import Counter

import pytest

from understudy import triage


def _tickets(seed: int, count: int) -> list[triage.Ticket]:
    rng = random.Random(seed)
    return [triage.ticket(rng) for _ in range(count)]


def test_the_same_seed_writes_the_same_tickets() -> None:
    assert _tickets(3, 200) == _tickets(3, 200)
    assert _tickets(3, 200) != _tickets(4, 200)


def test_the_answer_is_a_function_of_the_text() -> None:
    for written in _tickets(5, 2000):
        assert triage.answer_text(written.text) == written.answer
        assert json.loads(written.answer) == triage.answer(written.text)


def test_every_phrase_decides_its_own_intent() -> None:
    for intent, phrases in triage.INTENTS.items():
        for phrase in phrases:
            assert triage.answer(phrase.format(p="router", m="$5"))["intent"] == intent, phrase


def test_no_two_phrases_look_for_the_same_words() -> None:
    looked_for = [words for words, _ in triage._rules(triage.INTENTS)]
    assert len(looked_for) == len(set(looked_for))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what is the weather", ("other", "other", "normal", None)),
        ("", ("other", "other", "normal", None)),
        (
            "The camera is fine, by the way. The lamp stopped working! No hurry.",
            ("defect", "lamp", "high", None),
        ),
        ("I love the app. It is an emergency.", ("praise", "app", "urgent", None)),
        ("you charged me $12.50 for the soundbar twice", ("billing", "speaker", "normal", 12.5)),
        ("the invoice for the webcam says 40 euros", ("billing", "camera", "normal", 40)),
        ("the happy customer", ("other", "other", "normal", None)),
    ],
)
def test_the_rules(text: str, expected: tuple[object, ...]) -> None:
    assert tuple(triage.answer(text).values()) == expected


def test_no_answer_is_common_enough_to_guess() -> None:
    answers = Counter(written.answer for written in _tickets(6, 5000))
    assert answers.most_common(1)[0][1] < 0.03 * 5000
    texts = {written.text for written in _tickets(6, 5000)}
    assert len(texts) > 4950


def test_a_request_is_a_chat_completion_of_the_task() -> None:
    written = _tickets(7, 1)[0]
    body = triage.request(written, "gpt")
    assert body["messages"][-1] == {"role": "user", "content": written.text}
    assert (body["model"], body["metadata"]) == ("gpt", {"task": "triage"})
