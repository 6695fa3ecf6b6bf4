"""Integration tests: the real program and real counterparts, on loopback, within bounded time.

One file per behaviour, named as KumoMTA names its own. L{tests.integration.program} starts ours,
L{tests.integration.parts} starts HAProxy, Dante and the others, L{tests.integration.sink} is the
mail host at the end of the way, which can be told to misbehave.
"""
