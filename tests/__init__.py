"""The tests: unit tests of every room, and integration tests against real counterparts."""
