"""The pre-training corpus: an endless stream of generated conversations and prose.

`document(rng)` gives one list of messages; prose is a lone assistant message. The tasks are shaped
as real ones are (name the intent, choose a label, extract to JSON, copy, look up, reply, call a
tool) with labels, keys and styles that vary, so that a LoRA on top has to learn only the last step.
The built-in triage task and the data sets used for measuring are not among them.
"""

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from trainer.base.grammar import expand, grammar, number

Message = dict[str, Any]


class Concern(NamedTuple):
    """A customer's message about an object of a domain, with what it is about."""

    text: str
    domain: str
    thing: str
    issue: str


def document(rng: random.Random) -> list[Message]:
    """One conversation; the mix is by tokens roughly half intents, a quarter extraction."""
    make = rng.choices([task for task, _ in _MIX], weights=[weight for _, weight in _MIX])[0]
    return make(rng)


def concern(rng: random.Random) -> Concern:
    """A message with its noise: openers, context, tails, casing, missing stops, typos."""
    known = grammar()
    domain = rng.choice(list(known.domains))
    thing = rng.choice(list(known.domains[domain]))
    issue = rng.choice(list(known.issues))
    said = rng.choice(known.domains[domain][thing])
    core = expand(rng.choice(known.issues[issue]), rng, {"o": said})
    return Concern(_dress(core, rng), domain, thing, issue)


def _dress(core: str, rng: random.Random) -> str:
    known = grammar()
    parts = [core]
    if rng.random() < 0.35:
        parts.insert(rng.randrange(2), expand(rng.choice(known.contexts), rng))
    if rng.random() < 0.25:
        parts.append(rng.choice(known.tails))
    if rng.random() < 0.2:
        parts.insert(0, rng.choice(known.openers))
    return _style(parts, rng)


def _style(parts: list[str], rng: random.Random) -> str:
    style = rng.random()
    if style < 0.15:
        text = " ".join(parts).lower()
    elif style < 0.3:
        text = ", ".join(parts)
    else:
        text = " ".join(_sentence(part, rng) for part in parts)
    return _mistype(text, rng) if rng.random() < 0.05 else text


def _sentence(part: str, rng: random.Random) -> str:
    asks = part.lower().startswith(_QUESTIONS)
    return part[0].upper() + part[1:] + ("?" if asks else rng.choice("...!"))


_QUESTIONS = (
    "how",
    "what",
    "why",
    "when",
    "where",
    "which",
    "who",
    "can ",
    "is ",
    "am ",
    "are ",
    "do ",
    "could",
    "will",
)


def _mistype(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) - 1)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _label(words: str, style: str) -> str:
    """`direct_debit` and the like in the style that the system prompt asks for."""
    spaced = words.replace("_", " ")
    return {
        "snake": words,
        "words": spaced,
        "title": spaced.title(),
        "kebab": words.replace("_", "-"),
        "upper": words.upper(),
    }[style]


_STYLES = ("snake", "snake", "snake", "words", "title", "kebab", "upper")
_NAMING = (
    "Name the intent{of}. Write it like {example}.",
    "Answer with the intent{of} and nothing else, for example {example}.",
    "You sort messages{of}. Give only the label, in the form {example}.",
    "Route the request{of}. Labels look like {example}.",
)


def _intent_open(rng: random.Random) -> list[Message]:
    """Name object and issue in one label; the prompt shows the style by an example of another."""
    said, other, style = concern(rng), concern(rng), rng.choice(_STYLES)
    order = rng.choice(("{0}_{1}", "{0}_{1}", "{1}_{0}"))
    example = _label(order.format(other.thing, other.issue), style)
    of = rng.choice(("", f" of a {said.domain}'s customers", f" for the {said.domain} team"))
    system = rng.choice(_NAMING).format(of=of, example=example)
    return _exchange(system, said.text, _label(order.format(said.thing, said.issue), style))


def _intent_choice(rng: random.Random) -> list[Message]:
    """Choose among labels that the prompt lists: issues, objects or domains."""
    said, style = concern(rng), rng.choice(_STYLES)
    aspect = rng.choice(("issue", "thing", "domain"))
    pool = {"issue": list(grammar().issues), "thing": _THINGS, "domain": list(grammar().domains)}[
        aspect
    ]
    gold = getattr(said, aspect)
    labels = rng.sample([label for label in pool if label != gold], rng.randrange(1, 8))
    labels.insert(rng.randrange(len(labels) + 1), gold)
    lead = rng.choice(
        ("Choose one label:", "Classify into", "Which of these fits the message:", "Labels:")
    )
    system = f"{lead} {', '.join(_label(label, style) for label in labels)}."
    return _exchange(system, said.text, _label(gold, style))


def _intent_aspect(rng: random.Random) -> list[Message]:
    """Name one aspect of the message without being given the labels."""
    said, aspect = concern(rng), rng.choice(("issue", "thing", "domain"))
    asked = {
        "issue": ("What is the problem?", "Give the issue.", "Problem in one label."),
        "thing": ("What is it about?", "Name the object.", "Which product or service?"),
        "domain": ("Which department?", "Give the domain.", "Which team answers?"),
    }[aspect]
    return _exchange(rng.choice(asked), said.text, getattr(said, aspect))


_FACTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    # fact -> (names of its key, sentences that state it, kind of value)
    "name": (
        ("name", "customer", "sender"),
        ("my name is {v}", "this is {v}", "regards, {v}", "{v} here"),
        "name",
    ),
    "city": (
        ("city", "place", "location"),
        ("I live in {v}", "I am in {v}", "please send it to {v}"),
        "city",
    ),
    "day": (
        ("day", "date", "when"),
        ("I bought it on {v}", "call me on {v}", "it happened on {v}"),
        "day",
    ),
    "amount": (
        ("amount", "sum", "price", "total"),
        ("I paid {v}", "it cost {v}", "you took {v}", "the bill says {v}", "{v} were charged"),
        "money",
    ),
    "reference": (
        ("reference", "order", "number", "id"),
        ("my reference is {v}", "order number {v}", "it is about number {v}"),
        "number",
    ),
    "quantity": (("quantity", "count"), ("I need {v} of them", "we have {v} pieces"), "number"),
    "colour": (("colour", "color"), ("the {v} one", "it is {v}", "I chose {v}"), "colour"),
}
_MOODS = {
    "urgent": ("this is urgent", "I need help right now", "it is an emergency", "answer at once"),
    "high": ("please hurry", "I need it soon", "this matters to me", "I am angry"),
    "low": ("there is no hurry", "take your time", "it is not important", "just curious"),
}
_ASPECT_KEYS = {
    "issue": ("intent", "issue", "problem", "category", "type"),
    "thing": ("product", "object", "item", "topic", "subject"),
    "domain": ("domain", "department", "team", "queue"),
    "mood": ("priority", "urgency", "severity", "level"),
}


def _value(kind: str, rng: random.Random) -> tuple[str, Any]:
    """A value as it stands in the text, and as it belongs in JSON."""
    if kind == "money":
        sum_ = rng.choice(
            (str(rng.randrange(1, 1000)), f"{rng.randrange(1, 1000)}.{rng.randrange(10, 99)}")
        )
        number_ = float(sum_) if "." in sum_ else int(sum_)
        return rng.choice(("${}", "${}", "{} dollars", "{} euros", "{} pounds")).format(
            sum_
        ), number_
    if kind == "number":
        digits = number(rng)
        return digits, int(digits)
    word = rng.choice(grammar().words[kind])
    return word, word


def _extract(rng: random.Random) -> list[Message]:
    """Read a message into compact JSON with the keys asked for; what is not said is null."""
    said, facts = concern(rng), rng.sample(list(_FACTS), rng.randrange(1, 4))
    mood = rng.choice((*_MOODS, "normal"))
    parts = [said.text]
    found: dict[str, Any] = {
        "issue": said.issue, "thing": said.thing, "domain": said.domain, "mood": mood
    }  # fmt: skip
    for fact in facts:
        shown, value = _value(_FACTS[fact][2], rng)
        stated = rng.random() < 0.65
        found[fact] = value if stated else None
        if stated:
            parts.append(_sentence(rng.choice(_FACTS[fact][1]).format(v=shown), rng))
    if mood != "normal":
        parts.insert(rng.randrange(len(parts) + 1), _sentence(rng.choice(_MOODS[mood]), rng))
    wanted = rng.sample(sorted(_ASPECT_KEYS), rng.randrange(4)) + facts
    rng.shuffle(wanted)
    keys = {rng.choice(_ASPECT_KEYS.get(key) or _FACTS[key][0]): found[key] for key in wanted}
    lead = rng.choice(
        (
            "Reply with JSON:",
            "Extract as JSON:",
            "Fill in the JSON keys",
            "Read the ticket into JSON:",
        )
    )
    return _exchange(
        f"{lead} {', '.join(keys)}.", " ".join(parts), json.dumps(keys, separators=(",", ":"))
    )


def _copy(rng: random.Random) -> list[Message]:
    """Repeat a part of the message exactly; what teaches the model to point at its input."""
    words = [
        rng.choice(grammar().words[rng.choice(("thing", "verb", "adjective", "name", "city"))])
        if rng.random() < 0.7
        else number(rng)
        for _ in range(rng.randrange(2, 9))
    ]
    text = " ".join(words)
    task, result = rng.choice(
        (
            ("Repeat the message.", text),
            ("Reply with the first word.", words[0]),
            ("Reply with the last word.", words[-1]),
            ("Write the words as a JSON list.", json.dumps(words, separators=(",", ":"))),
            ("Join the words with underscores.", "_".join(words)),
            ("Join the words with underscores, in lower case.", "_".join(words).lower()),
            ("Write the message in capitals.", text.upper()),
            ("Repeat the message backwards, word by word.", " ".join(reversed(words))),
        )
    )
    return _exchange(task, text, result)


def _lookup(rng: random.Random) -> list[Message]:
    """A table in the prompt, a question, the value."""
    keys = rng.sample(grammar().words["thing"], rng.randrange(2, 6))
    table = {key: rng.choice((number(rng), rng.choice(grammar().words["colour"]))) for key in keys}
    asked = rng.choice(keys)
    listed = ", ".join(f"{key}: {value}" for key, value in table.items())
    question = rng.choice(("{}", "{}?", "what about the {}", "I need the {}.")).format(asked)
    return _exchange(f"Look it up. {listed}.", question, table[asked])


def _reply(rng: random.Random) -> list[Message]:
    said = concern(rng)
    text = expand(rng.choice(grammar().replies), rng, {"o": said.thing.replace("_", " ")})
    return _exchange(
        rng.choice(("You are a helpful assistant.", "You answer customers.", "")), said.text, text
    )


def _prose(rng: random.Random) -> list[Message]:
    known = grammar()
    written = [
        _sentence(expand(rng.choice(known.sentences), rng), rng) for _ in range(rng.randrange(2, 6))
    ]
    return [{"role": "assistant", "content": " ".join(written)}]


def _tool(rng: random.Random) -> list[Message]:
    """Call the tool that fits, with an argument out of the message."""
    said, (shown, value) = concern(rng), _value("number", rng)
    names = [
        f"{verb}_{said.thing}" for verb in rng.sample(("find", "cancel", "change", "track"), 2)
    ]
    name = rng.choice(names)
    call = {"name": name, "arguments": {"id": value}}
    ask = f"Please {name.replace('_', ' ')} {shown}. {said.text}"
    system = "You can call tools: " + ", ".join(names) + "."
    return _exchange(system, ask, f"<tool_call>\n{json.dumps(call)}\n</tool_call>")


def _exchange(system: str, user: str, answer: str) -> list[Message]:
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": user}, {"role": "assistant", "content": answer}]


_THINGS = sorted({thing for things in grammar().domains.values() for thing in things})
_MIX: tuple[tuple[Callable[[random.Random], list[Message]], float], ...] = (
    (_intent_open, 0.30), (_intent_choice, 0.12), (_intent_aspect, 0.10), (_extract, 0.20),
    (_copy, 0.08), (_lookup, 0.04), (_reply, 0.05), (_prose, 0.09), (_tool, 0.02),
)  # fmt: skip
