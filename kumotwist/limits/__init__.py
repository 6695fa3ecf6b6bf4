"""Limits that hold for a whole node, whatever the number of its processes.

Whoever must keep to a limit knows only L{kumotwist.interfaces.ILimits}. There are two kinds:
I{places} (so many connections at once), which are asked for and given back, and I{rates} (so many
events in a time). L{LimitTable} is the truth about both, in one process;
L{RemoteLimits} asks the L{Lender} of another one.
"""

from kumotwist.limits.rates import RateTable
from kumotwist.limits.remote import Lender, RemoteLimits
from kumotwist.limits.table import LimitTable, Permit

__all__ = ["Lender", "LimitTable", "Permit", "RateTable", "RemoteLimits"]
