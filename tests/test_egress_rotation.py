"""Weighted rotation through the sources of a pool."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress.rotation import Rotation, Rotations


class RotationTests(SynchronousTestCase):
    """One pool, one site."""

    @settings(max_examples=100, deadline=None)
    @given(
        weights=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
        offset=st.integers(0, 60),
    )
    def test_exact_in_any_window(self, weights: list[int], offset: int) -> None:
        """Any run of (sum of weights) picks holds each source as often as its weight says."""
        rotation = Rotation([(f"s{number}", weight) for number, weight in enumerate(weights)])
        picks = [rotation.pick(lambda name: True) for _ in range(offset + sum(weights))]
        expected = {f"s{number}": weight for number, weight in enumerate(weights) if weight}
        self.assertEqual(Counter(picks[offset:]), expected)

    def test_smooth(self) -> None:
        """A heavy source does not take all of its turns in a row."""
        rotation = Rotation([("heavy", 4), ("light", 2)])
        picks = "".join((rotation.pick(lambda name: True) or "")[0] for _ in range(6))
        self.assertNotIn("hhh", picks)

    def test_weight_zero_is_never_picked(self) -> None:
        """A weight of 0 takes a source out of the pool."""
        rotation = Rotation([("off", 0), ("on", 1)])
        self.assertEqual({rotation.pick(lambda name: True) for _ in range(5)}, {"on"})

    def test_ineligible_sources_are_passed_over(self) -> None:
        """A source that may not be used loses its turn; the others carry the mail."""
        rotation = Rotation([("a", 5), ("b", 1), ("c", 1)])
        picks = Counter(rotation.pick(lambda name: name != "a") for _ in range(20))
        self.assertEqual(set(picks), {"b", "c"})

    def test_nothing_eligible(self) -> None:
        """With no usable source there is no pick, however large the weights are."""
        rotation = Rotation([("a", 1_000_000), ("b", 999_999)])
        self.assertIsNone(rotation.pick(lambda name: False))
        self.assertIsNotNone(rotation.pick(lambda name: True))

    def test_no_entries(self) -> None:
        """A pool without weights picks nothing."""
        self.assertIsNone(Rotation([("a", 0)]).pick(lambda name: True))


class RotationsTests(SynchronousTestCase):
    """All pools and sites."""

    def test_sites_rotate_apart(self) -> None:
        """Each site has a rotation of its own, and keeps it."""
        rotations = Rotations({"pool": [("a", 1), ("b", 1)]})
        first = [rotations.pick("pool", site, lambda name: True) for site in ("x", "y")]
        second = [rotations.pick("pool", site, lambda name: True) for site in ("x", "y")]
        self.assertEqual((first, second), (["a", "a"], ["b", "b"]))
        self.assertEqual(rotations.sources("pool"), ["a", "b"])
