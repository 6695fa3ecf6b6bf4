"""Logging in to a host that wants it, over connections that are safe enough."""

from __future__ import annotations

from kumotwist.egress.settings import PathSettings
from kumotwist.smtp.client import ESMTPClient
from kumotwist.smtp.session_errors import SessionAuthError
from kumotwist.wire.smtp.phases import Phase

__all__ = ["log_in"]


async def log_in(client: ESMTPClient, path: PathSettings, host: object) -> None:
    """Log in as a path says; nothing is done if it says nothing.

    @param host: the host; as text it is called so in errors.
    @raise SMTPSessionError: if the session may not be used, or was lost.
    """
    username, password = path.smtp_auth_plain_username, path.smtp_auth_plain_password
    if username is None and password is None:
        return
    fault = _fault(client, path)
    if fault:
        raise SessionAuthError(Phase.AUTH.value, f"not logged in to {host}: {fault}")
    await client.authenticate(username or "", password or "")


def _fault(client: ESMTPClient, path: PathSettings) -> str:
    """Why the path's login must not be said over this connection; usually empty."""
    if path.smtp_auth_plain_username is None:
        return "smtp_auth_plain_username is missing"
    if path.smtp_auth_plain_password is None:
        return "smtp_auth_plain_password is missing"
    if client.tls is None:
        if path.allow_smtp_auth_plain_without_tls:
            return ""
        return "the connection is not encrypted (allow_smtp_auth_plain_without_tls = no)"
    if client.tls.verified or path.allow_smtp_auth_plain_without_valid_certificate:
        return ""
    return (
        f"the certificate is not good: {client.tls.verify_error or 'it was not checked'} "
        "(allow_smtp_auth_plain_without_valid_certificate = no)"
    )
