"""Batches: padding, the shared prefix and accumulation change nothing of loss and gradients."""

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.conftest import row
from trainer import batches
from trainer.batches import collate, plan, shared_prefix, split
from trainer.loss import summed_loss
from trainer.model import Base, add_lora, logits_of
from trainer.recipe import Recipe
from trainer.render import Example


def _examples(base: Base, count: int = 7) -> list[Example]:
    return [base.renderer.example(row(number)) for number in range(count)]


def _loss_and_gradient(base: Base, pieces: list[list[Example]]) -> tuple[float, torch.Tensor]:
    """Of one step on the same fresh LoRA, whose B is made random so that every part counts."""
    lora = add_lora(base, Recipe(rank=8))
    weights = [p for p in lora.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(1)
    for weight in weights:
        weight.data = torch.randn(weight.shape, generator=generator) * 0.05
    total = 0.0
    for piece in pieces:
        batch = base.batch(piece)
        loss = summed_loss(logits_of(lora, batch), batch.labels)
        loss.backward()
        total += loss.item()
    gradient = torch.cat([w.grad.flatten() for w in weights if w.grad is not None])
    lora.unload()
    return total, gradient


def test_accumulation_of_pieces_equals_one_batch(tiny: Base) -> None:
    examples = _examples(tiny)
    whole = _loss_and_gradient(tiny, [examples])
    for parts in (2, 3, 7):
        pieces = list(split(examples, parts))
        assert list(chain(*pieces)) == examples
        loss, gradient = _loss_and_gradient(tiny, pieces)
        assert loss == pytest.approx(whole[0], rel=1e-5)
        torch.testing.assert_close(gradient, whole[1], rtol=1e-3, atol=1e-5)


def test_the_shared_prefix_changes_nothing(tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = _examples(tiny)
    assert tiny.batch(examples).prefix.numel() > 8
    shared = _loss_and_gradient(tiny, [examples])
    monkeypatch.setattr(batches, "_LEAST_PREFIX", 10**9)
    assert tiny.batch(examples).prefix.numel() == 0
    whole = _loss_and_gradient(tiny, [examples])
    assert shared[0] == pytest.approx(whole[0], rel=1e-5)
    torch.testing.assert_close(shared[1], whole[1], rtol=1e-3, atol=1e-5)


def test_a_row_is_untouched_by_its_neighbours(tiny: Base) -> None:
    examples = _examples(tiny)
    alone = [_loss_and_gradient(tiny, [[example]])[0] for example in examples]
    assert _loss_and_gradient(tiny, [examples])[0] == pytest.approx(sum(alone), rel=1e-5)


def test_an_epoch_has_every_example_once_and_its_own_order(tiny: Base) -> None:
    examples = _examples(tiny, 23)
    first, again, second = (plan(examples, 4, 9, epoch) for epoch in (0, 0, 1))
    assert first == again
    assert first != second
    assert sorted(map(id, chain(*first))) == sorted(map(id, examples))


ids = st.lists(st.integers(0, 3), min_size=2, max_size=30)


@given(st.lists(st.tuples(ids, st.integers(1, 5)), min_size=1, max_size=6))
def test_collating_loses_no_token(rows: list[tuple[list[int], int]]) -> None:
    examples = [Example(one, max(1, len(one) - trained)) for one, trained in rows]
    batch = collate(examples, pad_id=9)
    prefix = batch.prefix[0].tolist()
    assert len(prefix) == shared_prefix(examples)
    for at, example in enumerate(examples):
        mask = batch.mask[at, len(prefix) :].bool()
        assert prefix + batch.ids[at][mask].tolist() == example.ids[:-1]
        assert batch.labels[at][batch.labels[at] != -100].tolist() == example.trained
        assert batch.positions[at][mask].tolist() == list(range(len(prefix), len(example.ids) - 1))
        # The logits of the last `keep` positions exist: no answer reaches into the prefix.
        assert batch.labels.shape[1] <= batch.ids.shape[1]
