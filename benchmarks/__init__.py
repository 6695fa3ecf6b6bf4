"""Measurements beside real counterparts, on this machine, in one run.

Only the ratios between the columns of one run mean anything. Every module that can be run says how
in its C{--help}; C{make help} has the short commands.
"""
