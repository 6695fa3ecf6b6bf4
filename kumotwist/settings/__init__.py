"""How a room declares what can be configured, once: type, default and documentation.

A room's settings are a frozen attrs class whose fields are made by L{setting}. The room itself
uses the instances as plain values and knows nothing of INI files; L{kumotwist.config} reads the
declarations to parse a file, and the reference page is generated from them.
"""

from kumotwist.settings.declare import Checked, Problem, Setting, declared, setting
from kumotwist.settings.kind import SettingType

__all__ = ["Checked", "Problem", "Setting", "SettingType", "declared", "setting"]
