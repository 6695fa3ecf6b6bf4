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

    def picks(self, rotation: Rotation, number: int) -> str:
        """So many picks in a row."""
        return "".join(rotation.pick(lambda name: True) or "?" for _ in range(number))

    def test_the_same_again(self) -> None:
        """Entries that have not changed go on as if nothing had been said."""
        one, other = (Rotation([("a", 3), ("b", 2)]) for _ in range(2))
        self.assertEqual(self.picks(one, 2), self.picks(other, 2))
        one.follow([("a", 6), ("b", 4), ("c", 0)])
        self.assertEqual(self.picks(one, 10), self.picks(other, 10))

    def test_one_joins(self) -> None:
        """Who stays keeps the turns that are left in the cycle, who is new joins it where it is."""
        rotation = Rotation([("a", 4), ("b", 3)])
        self.assertEqual(Counter(self.picks(rotation, 4)), {"a": 2, "b": 2})
        rotation.follow([("a", 4), ("b", 3), ("c", 4), ("d", 1)])
        self.assertEqual(Counter(self.picks(rotation, 6)), {"a": 2, "b": 1, "c": 2, "d": 1})
        self.assertEqual(Counter(self.picks(rotation, 12)), {"a": 4, "b": 3, "c": 4, "d": 1})

    def test_one_leaves(self) -> None:
        """What is left of a cycle is the others' alone."""
        rotation = Rotation([("a", 2), ("b", 3), ("c", 1)])
        first = self.picks(rotation, 3)
        rotation.follow([("a", 2), ("c", 1)])
        rest = self.picks(rotation, 3 - len(first.replace("b", "")))
        self.assertEqual(Counter((first + rest).replace("b", "")), {"a": 2, "c": 1})

    def test_all_leave(self) -> None:
        """A pool can lose all that it had, and get others."""
        rotation = Rotation([("a", 2)])
        self.picks(rotation, 1)
        rotation.follow([])
        self.assertEqual(self.picks(rotation, 2), "??")
        rotation.follow([("z", 5), ("y", 5)])
        self.assertEqual(Counter(self.picks(rotation, 10)), {"z": 5, "y": 5})

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

    def test_begins_anywhere(self) -> None:
        """Begun elsewhere, the sequence is the same one; and begun anywhere, a first pick has the
        weights' chances."""
        entries = [("a", 3), ("b", 1), ("c", 2)]
        whole = self.picks(Rotation(entries), 12)
        first = Counter[str]()
        for step in range(600):
            picks = self.picks(Rotation(entries, step / 600), 6)
            self.assertIn(picks, whole)
            first[picks[0]] += 1
        self.assertEqual(first, {"a": 300, "b": 100, "c": 200})

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
        self.assertEqual((first, second), (["a", "b"], ["b", "a"]))
        self.assertEqual(rotations.sources("pool"), ["a", "b"])

    def test_many_sites(self) -> None:
        """One message for each of many sites is shared out by the weights, wherever it begins."""
        for phase in (0.0, 0.3):
            rotations = Rotations({"pool": [("a", 3), ("b", 1)]}, phase)
            first = Counter(
                rotations.pick("pool", f"site {number}", lambda name: True) for number in range(100)
            )
            self.assertIn(first["a"], range(73, 78))

    def test_one_site(self) -> None:
        """What the first site begins with can be chosen."""
        picks = [
            Rotations({"pool": [("a", 1), ("b", 3)]}, phase).pick("pool", "x", lambda name: True)
            for phase in (0.0, 0.1, 0.5)
        ]
        self.assertEqual(picks, ["b", "a", "b"])

    def test_unknown_pool(self) -> None:
        """A pool that does not exist picks nothing."""
        rotations = Rotations({})
        self.assertIsNone(rotations.pick("pool", "x", lambda name: True))
        self.assertEqual(rotations.sources("pool"), [])

    def test_pools_of_a_source(self) -> None:
        """Where a source has a weight."""
        rotations = Rotations({"p": [("a", 1)], "q": [("a", 0), ("b", 1)], "r": [("b", 1)]})
        self.assertEqual(rotations.pools_of("a"), ["p"])
        self.assertEqual(rotations.pools_of("b"), ["q", "r"])


class PreferenceTests(SynchronousTestCase):
    """A message that wants the same source again, or another one."""

    def setUp(self) -> None:
        """A pool of three."""
        self.rotations = Rotations({"pool": [("a", 1), ("b", 1), ("c", 2), ("off", 0)]})

    def pick(self, *refused: str, **wanted: str) -> str | None:
        """Pick for one site; C{refused} are not eligible."""
        return self.rotations.pick("pool", "x", lambda name: name not in refused, **wanted)

    def test_prefer(self) -> None:
        """The preferred source is chosen, if it can be."""
        self.assertEqual([self.pick(prefer="b") for _ in range(5)], ["b"] * 5)
        self.assertNotEqual(self.pick("b", prefer="b"), "b")

    def test_prefer_what_is_not_there(self) -> None:
        """A source that has left the pool, or has no weight any more, is not preferred."""
        self.assertIn(self.pick(prefer="gone"), {"a", "b", "c"})
        self.assertIn(self.pick(prefer="off"), {"a", "b", "c"})

    def test_avoid(self) -> None:
        """The avoided source is left out, and the others share by their weights."""
        picks = Counter(self.pick(avoid="b") for _ in range(9))
        self.assertEqual(picks, {"a": 3, "c": 6})

    def test_avoid_the_only_one(self) -> None:
        """If no other source can be used, the avoided one is better than none."""
        self.assertEqual(self.pick("a", "c", avoid="b"), "b")
        self.assertIsNone(self.pick("a", "b", "c", avoid="b"))

    @settings(max_examples=150, deadline=None)
    @given(
        weights=st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(any),
        wishes=st.lists(
            st.tuples(st.sampled_from(["", "prefer", "avoid"]), st.integers(0, 4)), max_size=120
        ),
        offset=st.integers(0, 20),
    )
    def test_exact_whatever_comes_in_between(
        self, weights: list[int], wishes: list[tuple[str, int]], offset: int
    ) -> None:
        """Among the picks without a wish, any window is exact, whatever others wished for."""
        rotations = Rotations({"pool": [(f"s{n}", weight) for n, weight in enumerate(weights)]})
        plain = []
        for wish, number in [*wishes, *[("", 0)] * (offset + sum(weights))]:
            wanted = {wish: f"s{number}"} if wish else {}
            chosen = rotations.pick("pool", "x", lambda name: True, **wanted)
            # A wish that speaks of a source outside the pool is none.
            if not wish or number >= len(weights) or not weights[number]:
                plain.append(chosen)
        expected = {f"s{n}": weight for n, weight in enumerate(weights) if weight}
        for start in range(len(plain) - sum(weights) + 1):
            self.assertEqual(Counter(plain[start : start + sum(weights)]), expected)
