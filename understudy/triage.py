"""The built-in task: triage a support ticket of a smart-home shop to compact JSON.

`ticket(rng)` writes a customer's message from a space of far more than 1e9 messages and the right
answer to it. `answer(text)` decides by rules from the text alone, so that the demo's client, the
stand-in teacher and the tests agree without sharing state: `answer(t.text) == t.answer` for every
ticket. Text that was not written here gets a sensible default (intent and product `other`).
Deterministic from the generator's seed; knows nothing of models, HTTP or the lake.

The rules, in words: the intent is that of the first phrase found, in the order of `INTENTS`; the
product is the first one named, an aside ("The camera is fine, by the way.") does not count; the
amount is the first sum of money; the priority is what the customer says of it, else high when the
product is broken or access is lost, low for praise and wishes, normal for the rest.
"""

import json
import random
import re
from typing import Any, NamedTuple

SYSTEM_PROMPT = "Triage the ticket. Reply with JSON: intent, product, priority, amount."

# intent -> its phrases; {p} is the product as the customer calls it, {m} a sum of money.
# What `answer` looks for is the longest run of words between the slots.
INTENTS: dict[str, tuple[str, ...]] = {
    "refund": (
        "I want my money back for the {p}",
        "please refund the {m} that I paid for the {p}",
        "I sent the {p} back and am still waiting for my {m}",
        "when do I get a refund for the {p}?",
        "I would like to return the {p} and be repaid {m}",
    ),
    "cancellation": (
        "please cancel my order for the {p}",
        "I no longer need the {p} and want to get out of it",
        "stop my plan for the {p} at the end of the month",
        "I ordered the {p} by mistake",
        "I am ending my contract of {m} for the {p}",
    ),
    "billing": (
        "you charged me {m} for the {p} twice",
        "I do not know this charge of {m} for the {p}",
        "the invoice for the {p} says {m}",
        "why did the price of the {p} go up to {m}?",
        "my card was debited {m} for the {p}",
    ),
    "delivery": (
        "my parcel with the {p} has not arrived",
        "where is the {p} that I ordered?",
        "the tracking of the {p} has not moved",
        "the courier left the {p} with a stranger",
        "how long until you ship the {p}?",
    ),
    "defect": (
        "the {p} stopped working",
        "there is a crack in the {p}",
        "smoke came out of the {p}",
        "the {p} shows nothing but an error",
        "the {p} restarts every few minutes",
        "a part of the {p} is broken",
    ),
    "account": (
        "I cannot log in to use the {p}",
        "my password is rejected by the {p}",
        "I am locked out of the {p}",
        "the reset link for the {p} never comes",
        "someone else changed the email of the {p}",
    ),
    "setup": (
        "how do I connect the {p}?",
        "I need somebody to help me install the {p}",
        "which cable do I use for the {p}?",
        "the manual does not explain the {p}",
        "what is the first step to pair the {p}?",
    ),
    "wish": (
        "it would be great to have a dark mode on the {p}",
        "could you add a timer to the {p}?",
        "I wish there was a schedule in the {p}",
        "please consider a larger version of the {p}",
        "my suggestion is a mute button for the {p}",
    ),
    "praise": (
        "I love the {p}",
        "thank you so much for the {p}",
        "the {p} is my best purchase this year",
        "my family is delighted with the {p}",
        "five stars from me for the {p}",
    ),
}
PRODUCTS: dict[str, tuple[str, ...]] = {
    "router": ("router", "wifi box", "mesh node"),
    "camera": ("camera", "webcam", "garden cam"),
    "thermostat": ("thermostat", "heating control", "radiator dial"),
    "speaker": ("speaker", "soundbar", "music box"),
    "doorbell": ("doorbell", "door chime", "entry buzzer"),
    "lamp": ("lamp", "light bulb", "led strip"),
    "app": ("app", "mobile software", "phone program"),
}
PRIORITIES: dict[str, tuple[str, ...]] = {
    "urgent": (
        "This is urgent.",
        "I need an answer right now.",
        "It is an emergency.",
        "Call me back immediately.",
        "My business stands still until then.",
    ),
    "high": (
        "Please look at it today.",
        "I am losing patience.",
        "I need it before the weekend.",
        "This is the third time that I write.",
        "It matters a lot to me.",
    ),
    "low": (
        "There is no hurry.",
        "Whenever you have time.",
        "It can wait.",
        "Just a small matter.",
        "Not important, only curious.",
    ),
}
_DEFAULT_PRIORITY = {"defect": "high", "account": "high", "wish": "low", "praise": "low"}
_GREETINGS = ("Hi,", "Hello,", "Good morning,", "Dear team,", "Hey there,", "To the shop,", "")
_NAMES = (
    "Amara",
    "Bjorn",
    "Carla",
    "Deepak",
    "Elif",
    "Farid",
    "Greta",
    "Hana",
    "Ivo",
    "Jun",
    "Kofi",
    "Lena",
    "Mateo",
    "Nadia",
    "Oskar",
    "Priya",
    "Quinn",
    "Rosa",
    "Stefan",
    "Tomas",
    "Uma",
    "Yara",
)
_FACTS = (
    "My order number is {n}.",
    "I bought it {d} days ago.",
    "I live in flat {d}.",
    "The serial number ends in {n}.",
    "I have been a customer for {d} years.",
    "My neighbour has {d} of them.",
    "We spoke on the phone {d} days ago.",
    "It is for my parents.",
    "I use it every day.",
    "The colour is {c}.",
    "I moved house {d} weeks ago.",
    "My reference is {n}.",
)
_COLOURS = ("white", "black", "grey", "green", "silver", "blue", "red")
_ASIDES = ("The {p} is fine, by the way.", "The {p} works well, by the way.")
_CLOSINGS = ("Thanks, {name}", "Regards, {name}", "Best, {name}", "Yours, {name}", "{name}", "")

_MONEY = re.compile(r"\$(\d+(?:\.\d+)?)|(\d+(?:\.\d+)?) (?:dollars|euros)")
_ASIDE = re.compile(r"[^.!?]*, by the way[.!?]")


class Ticket(NamedTuple):
    """A customer's message and the answer that the rules give it, as compact JSON."""

    text: str
    answer: str


def answer(text: str) -> dict[str, Any]:
    """What the rules make of any text: intent, product, priority, amount (a number or None)."""
    folded = text.casefold()
    intent = _first(folded, _INTENT_RULES) or "other"
    return {
        "intent": intent,
        "product": _named_product(_ASIDE.sub("", folded)),
        "priority": _first(folded, _PRIORITY_RULES) or _DEFAULT_PRIORITY.get(intent, "normal"),
        "amount": _amount(folded),
    }


def answer_text(text: str) -> str:
    """`answer` as the teacher writes it: compact JSON, keys in their fixed order."""
    return json.dumps(answer(text), separators=(",", ":"))


def ticket(rng: random.Random) -> Ticket:
    """One generated message with its answer; about 3 % name no intent that the shop knows."""
    text = _message(rng)
    return Ticket(text, answer_text(text))


def request(written: Ticket, model: str) -> dict[str, Any]:
    """The body of the chat completion that a client sends for a ticket."""
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": written.text},
        ],
        "temperature": 0,
        "max_tokens": 96,
        "metadata": {"task": "triage"},
    }


def _message(rng: random.Random) -> str:
    product = rng.choice(tuple(PRODUCTS))
    body = [_concern(rng, product)]
    body += [_fact(rng) for _ in range(rng.choice((0, 1, 1, 2)))]
    if rng.random() < 0.15:
        other = rng.choice([name for name in PRODUCTS if name != product])
        body.insert(0, rng.choice(_ASIDES).format(p=rng.choice(PRODUCTS[other])))
    if rng.random() < 0.45:
        said = rng.choice(PRIORITIES[rng.choice(tuple(PRIORITIES))])
        body.insert(rng.randrange(len(body) + 1), said)
    closing = rng.choice(_CLOSINGS).format(name=rng.choice(_NAMES))
    parts = [rng.choice(_GREETINGS), *body, closing]
    return " ".join(part for part in parts if part)


def _concern(rng: random.Random, product: str) -> str:
    called = rng.choice(PRODUCTS[product])
    if rng.random() < 0.03:
        return f"I have a question about the {called}."
    phrase = rng.choice(INTENTS[rng.choice(tuple(INTENTS))])
    sentence = phrase.format(p=called, m=_money(rng))
    return sentence[0].upper() + sentence[1:] + ("" if phrase.endswith("?") else rng.choice(".!"))


def _money(rng: random.Random) -> str:
    whole = rng.randrange(5, 900)
    sum_ = f"{whole}.{rng.choice((25, 49, 75, 95, 99))}" if rng.random() < 0.5 else str(whole)
    return rng.choice(("${}", "${}", "{} dollars", "{} euros")).format(sum_)


def _fact(rng: random.Random) -> str:
    return rng.choice(_FACTS).format(
        n=rng.randrange(10_000, 1_000_000), d=rng.randrange(2, 60), c=rng.choice(_COLOURS)
    )


def _rules(phrases: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """Each phrase's longest run of words between slots, folded, with the label it decides."""
    return [
        (max(re.split(r"\{\w\}", phrase), key=len).casefold(), label)
        for label, all_phrases in phrases.items()
        for phrase in all_phrases
    ]


_INTENT_RULES = _rules(INTENTS)
_PRIORITY_RULES = _rules(PRIORITIES)
_PRODUCT_OF = {called: name for name, all_calls in PRODUCTS.items() for called in all_calls}
_PRODUCT = re.compile(r"\b(" + "|".join(map(re.escape, _PRODUCT_OF)) + r")\b")


def _first(folded: str, rules: list[tuple[str, str]]) -> str | None:
    return next((label for phrase, label in rules if phrase in folded), None)


def _named_product(folded: str) -> str:
    found = _PRODUCT.search(folded)
    return _PRODUCT_OF[found.group(1)] if found else "other"


def _amount(folded: str) -> float | int | None:
    found = _MONEY.search(folded)
    if not found:
        return None
    number = float(found.group(1) or found.group(2))
    return int(number) if number.is_integer() else number
