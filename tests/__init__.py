"""The tests: unit tests of every room, and integration tests against real counterparts.

A deprecation that our own modules set off is an error here, before it becomes one elsewhere.
"""

import warnings

warnings.filterwarnings("error", category=DeprecationWarning, module=r"kumotwist(\.|$)")
warnings.filterwarnings("error", category=PendingDeprecationWarning, module=r"kumotwist(\.|$)")
