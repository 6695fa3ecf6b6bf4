"""Hostile servers and clients as data, and what plays them; the tests are in tests/integration."""
