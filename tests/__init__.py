"""The tests: unit tests of every room, and integration tests against real counterparts.

A deprecation that our own modules set off is an error here, before it becomes one elsewhere.
Property tests try the same examples in every run, however slow the machine is.
"""

import warnings

from hypothesis import HealthCheck, settings

# trial gives warnings out again by their file, so what is matched is a path more often than a name.
_OURS = r"(.*/)?kumotwist([./]|$)"
warnings.filterwarnings("error", category=DeprecationWarning, module=_OURS)
warnings.filterwarnings("error", category=PendingDeprecationWarning, module=_OURS)

settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")
