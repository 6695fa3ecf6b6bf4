"""The HTTP listener: what programs and the C{kumo} command ask of a running node."""

from kumotwist.http.site import http_site

__all__ = ["http_site"]
