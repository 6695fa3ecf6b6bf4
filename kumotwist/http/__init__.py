"""The HTTP listener: what programs and the C{kumo} command ask of a running node."""

from kumotwist.http.site import guarded_site, http_site

__all__ = ["guarded_site", "http_site"]
