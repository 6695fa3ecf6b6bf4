"""Why a name could not be looked up."""

from __future__ import annotations

from kumotwist.errors import KumotwistError

__all__ = ["DNSError"]


class DNSError(KumotwistError):
    """A name could not be looked up.

    @ivar domain: the name that was asked for.
    @ivar text: what is wrong, in words for a record or a report.
    @ivar permanent: whether asking again is of no use: the name does not exist, or cannot exist.
        Everything else, time-outs and refusals of name servers above all, is temporary.
    @ivar unanswered: whether no name server has answered anything, this question or others,
        meanwhile: it is the way to them that is broken, or they are, and not the name.
    """

    def __init__(
        self, domain: str, text: str, *, permanent: bool = False, unanswered: bool = False
    ) -> None:
        super().__init__(text)
        self.domain = domain
        self.text = text
        self.permanent = permanent
        self.unanswered = unanswered
