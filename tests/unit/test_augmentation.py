"""Mixup, cutmix and the loss on mixed labels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from models.augmentation import Cutmix, Mixup, mixup_quantiles
from models.task import smoothed_cross_entropy


def one_hot_batch(size=6):
    """Image i is the constant i, label i: what an image is made of can be read off its pixels."""
    images = torch.arange(size, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    labels = torch.arange(size)
    return images, [(labels, torch.ones(size))]


def test_mixup_quantiles_are_those_of_beta():
    """Against samples: max(lam, 1 - lam) for lam ~ Beta(0.2, 0.2)."""
    torch.manual_seed(0)
    samples = torch.distributions.Beta(0.2, 0.2).sample((200_000,))
    samples = torch.maximum(samples, 1 - samples)
    table = mixup_quantiles(0.2)
    assert table.min() >= 0.5
    assert torch.all(table[1:] >= table[:-1])
    for share in (0.1, 0.3, 0.5, 0.9):
        # 0.005: three deviations of a sample quantile at 200,000 samples
        assert abs(samples.quantile(share) - table[int(share * len(table))]) < 0.005


def test_mixup_mixes_with_the_neighbour_and_labels_follow():
    torch.manual_seed(0)
    images, labels = one_hot_batch()
    mixed, targets = Mixup(0.2)(images, labels)
    (own, own_weight), (partner, partner_weight) = targets
    assert torch.equal(partner, own.roll(1, 0))
    torch.testing.assert_close(own_weight + partner_weight, torch.ones(6))
    assert torch.all(own_weight >= 0.5)
    expected = own_weight * own + partner_weight * partner
    torch.testing.assert_close(mixed[:, 0, 0, 0], expected)


def test_cutmix_pastes_a_box_from_two_before_and_labels_follow_its_area():
    images, labels = one_hot_batch()
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        mixed, targets = Cutmix(0.7)(images, labels)
        (own, kept), (partner, cut) = targets
        assert torch.equal(partner, own.roll(2, 0))
        is_pasted = mixed[:, 0] == partner.view(-1, 1, 1)
        is_own = mixed[:, 0] == own.view(-1, 1, 1)
        assert torch.all(is_pasted ^ is_own)
        torch.testing.assert_close(is_pasted.float().mean(dim=(1, 2)), cut)
        torch.testing.assert_close(kept + cut, torch.ones(6))
        seen.add(round(cut[0].item(), 3))
    assert len(seen) > 5  # boxes differ


@pytest.mark.parametrize(("strength", "probability"), [(0.95, 0.5125), (0.9, 0.435), (0.85, 0.3575), (0.8, 0.28)])
def test_cutmix_cuts_nothing_as_often_as_the_recipe_says(strength, probability):
    module = Cutmix(strength)
    assert module.probability_of_none == pytest.approx(probability)
    images, labels = one_hot_batch(3)
    torch.manual_seed(0)
    untouched = sum(torch.equal(module(images, labels)[0], images) for _ in range(2000)) / 2000
    # Small boxes may miss every pixel centre of 8 x 8 too, so a little more often than stated.
    assert probability - 0.03 < untouched < probability + 0.09


def test_the_kept_area_is_the_drawn_one_wherever_the_box_lies():
    """Mean of 1 + ln(u) / 4 over u ~ U(e^-4, 1), by hand: with q = e^-4, 1 + (-1 - q (ln q - 1)) / (4 (1 - q)) = 0.769 (published).

    Boxes cut off at the border would keep more: 0.83 on average.
    """
    torch.manual_seed(0)
    module = Cutmix(0.62)  # cuts always: 1.55 * 0.62 - 0.96 = 0.001
    images, labels = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 64, 64).contiguous(), [(torch.arange(3), torch.ones(3))]
    kept = [float(module(images, labels)[1][0][1][0]) for _ in range(3000)]
    # 0.01: three deviations of the mean of 3,000 draws (0.18 each)
    assert abs(sum(kept) / len(kept) - 0.769) < 0.01
    assert min(kept) < 0.05


def test_mixup_then_cutmix_mixes_labels_four_ways():
    torch.manual_seed(3)
    images, labels = one_hot_batch()
    mixed, targets = Cutmix(0.7)(*Mixup(0.2)(images, labels))
    assert len(targets) == 4
    total = sum(weight for _, weight in targets)
    torch.testing.assert_close(total, torch.ones(6))
    # The mean pixel is the labels' mean, since image i is the constant i.
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), sum(label * weight for label, weight in targets), atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(smoothing=st.floats(0, 0.9), classes=st.integers(2, 12), seed=st.integers(0, 999))
def test_smoothed_cross_entropy_is_cross_entropy_with_soft_labels(smoothing, classes, seed):
    torch.manual_seed(seed)
    logits = torch.randn(5, classes, dtype=torch.float64).float()
    labels = torch.randint(0, classes, (5,))
    soft = torch.full((5, classes), smoothing / (classes - 1))
    soft[torch.arange(5), labels] = 1 - smoothing
    expected = torch.nn.functional.cross_entropy(logits, soft, reduction="none")
    torch.testing.assert_close(smoothed_cross_entropy(logits, [(labels, torch.ones(5))], smoothing), expected)


def test_mixed_labels_mix_the_losses():
    torch.manual_seed(0)
    logits, labels, weight = torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), torch.tensor([0.9, 0.5, 0.7, 1.0])
    mixed = smoothed_cross_entropy(logits, [(labels, weight), (labels.roll(1), 1 - weight)], 0.1)
    one = smoothed_cross_entropy(logits, [(labels, torch.ones(4))], 0.1)
    two = smoothed_cross_entropy(logits, [(labels.roll(1), torch.ones(4))], 0.1)
    torch.testing.assert_close(mixed, weight * one + (1 - weight) * two)
