"""Tests that need network namespaces of their own: root, and a kernel that grants them.

They stand beside the integration tests because many containers do not allow namespaces, and there
a skipped test counts as a failed one: C{make test-netns}.
"""
