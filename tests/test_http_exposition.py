"""Numbers as Prometheus reads them."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.http import guarded_site
from kumotwist.http.exposition import Family, MetricsPage, exposition
from kumotwist.http.settings import HTTPSettings
from tests.http_client import Connection


class ExpositionTests(SynchronousTestCase):
    """The text format."""

    def test_families(self) -> None:
        """Each family has its help, its type and its samples, labelled or not."""
        text = exposition(
            [
                Family("a_total", "counter", "what it is", [({"x": "1", "y": "2"}, 7)]),
                Family("b", "gauge", "another", [({}, 0)]),
                Family("c", "gauge", "nothing yet", []),
            ]
        )
        self.assertEqual(
            text.splitlines(),
            [
                "# HELP a_total what it is",
                "# TYPE a_total counter",
                'a_total{x="1",y="2"} 7',
                "# HELP b another",
                "# TYPE b gauge",
                "b 0",
                "# HELP c nothing yet",
                "# TYPE c gauge",
            ],
        )
        self.assertTrue(text.endswith("\n"))

    def test_labels_are_escaped(self) -> None:
        """Quotes, backslashes and line ends in a label."""
        text = exposition([Family("a", "gauge", "x", [({"x": 'a"b\\c\nd'}, 1)])])
        self.assertIn('a{x="a\\"b\\\\c\\nd"} 1\n', text)

    def test_page(self) -> None:
        """The page is rendered anew each time, in the version that it names."""
        numbers = iter(("a 1\n", "a 2\n"))
        page = MetricsPage(lambda: next(numbers))
        site = guarded_site(Clock(), HTTPSettings().trusted_hosts, {b"metrics": page})
        for body in (b"a 1\n", b"a 2\n"):
            answer = Connection(site, None).ask("/metrics")
            self.assertEqual((answer.status, answer.body), (200, body))
            self.assertIn("content-type: text/plain; version=0.0.4", answer.header)
