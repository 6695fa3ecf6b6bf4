"""The tests: unit tests of every room, and integration tests against real counterparts.

A deprecation that our own modules set off is an error here, before it becomes one elsewhere.
"""

import warnings

# trial gives warnings out again by their file, so what is matched is a path more often than a name.
_OURS = r"(.*/)?kumotwist([./]|$)"
warnings.filterwarnings("error", category=DeprecationWarning, module=_OURS)
warnings.filterwarnings("error", category=PendingDeprecationWarning, module=_OURS)
