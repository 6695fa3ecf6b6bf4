"""Killing real processes at random while mail flows: C{python -m tests.torture} (C{make torture}).

A scenario runs the real node, hands numbered messages in over several pipelined connections,
kills or breaks something at a random moment, and mends it, round after round. In the end every
message that got its 250 must have arrived, whole, and each copy must be of a message that was in
flight at a kill. A short form of the scenarios is part of the integration tests.
"""
