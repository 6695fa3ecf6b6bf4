"""Fakes for tests, of this package and of programs that use it; each passes its interface's
verification. Import them from their modules."""
