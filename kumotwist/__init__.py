"""kumotwist: a mail transfer agent on Twisted whose mail leaves through forward proxies."""

__all__ = ["__version__"]

__version__ = "26.11.0"
