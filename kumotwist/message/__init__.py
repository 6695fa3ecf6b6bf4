"""A message as a value: its envelope, its header, the trace and the reports made about it."""
