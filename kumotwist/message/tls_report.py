"""A TLS report as mail (RFC 8460, 5.3): C{multipart/report}, the report gzipped in base64."""

from __future__ import annotations

import binascii
import textwrap

import attrs

from kumotwist.message.dates import date_time

__all__ = ["TLSReportMail"]


@attrs.define(frozen=True)
class TLSReportMail:
    """One report to one address.

    @ivar sender: the address that it comes from.
    @ivar recipient: the address that it goes to.
    @ivar domain: the domain that it is about.
    @ivar submitter: this node's name.
    @ivar report_id: what the report is called; no blanks and no angles.
    @ivar begin: the first moment that it covers; seconds since the epoch.
    @ivar end: the last one.
    @ivar report: the gzipped JSON.
    """

    sender: str
    recipient: str
    domain: str
    submitter: str
    report_id: str
    begin: float
    end: float
    report: bytes

    @property
    def file_name(self) -> str:
        """RFC 8460, 5.1."""
        return (
            f"{self.submitter}!{self.domain}!{int(self.begin)}!{int(self.end)}"
            f"!{self.report_id}.json.gz"
        )

    def octets(self, now: float) -> bytes:
        """The message, in 7 bits, its lines ended by CRLF.

        It says C{TLS-Required: No}: a report on broken TLS must arrive all the same (RFC 8460, 5).
        """
        boundary = f"=_{self.report_id}"
        encoded = binascii.b2a_base64(self.report, newline=False).decode("ascii")
        words = (
            f"This is a report on the TLS sessions of {self.submitter} with the mail hosts of "
            f"{self.domain}, as RFC 8460 describes it. {self.domain} has asked for it by a TXT "
            f"record at _smtp._tls.{self.domain}."
        )
        lines = [
            f"From: <{self.sender}>",
            f"To: <{self.recipient}>",
            f"Date: {date_time(now)}",
            f"Message-ID: <{self.report_id}@{self.submitter}>",
            f"Subject: Report Domain: {self.domain}",
            f" Submitter: {self.submitter}",
            f" Report-ID: <{self.report_id}@{self.submitter}>",
            f"TLS-Report-Domain: {self.domain}",
            f"TLS-Report-Submitter: {self.submitter}",
            "TLS-Required: No",
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
            'Content-Type: multipart/report; report-type="tlsrpt";',
            f'\tboundary="{boundary}"',
            "",
            f"--{boundary}",
            "Content-Type: text/plain; charset=us-ascii",
            "",
            *textwrap.wrap(words, 72),
            "",
            f"--{boundary}",
            "Content-Type: application/tlsrpt+gzip",
            "Content-Transfer-Encoding: base64",
            "Content-Disposition: attachment;",
            f'\tfilename="{self.file_name}"',
            "",
            *(encoded[begin : begin + 76] for begin in range(0, len(encoded), 76)),
            "",
            f"--{boundary}--",
            "",
        ]
        return "\r\n".join(lines).encode("ascii")
