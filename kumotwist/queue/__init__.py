"""From a received message to its fate: reception, queues, delivery attempts, verdicts.

A message that is due leaves its I{scheduled queue} (named after its domain) for a I{ready queue}
(one for each pair of source and site), from which delivery sessions take it. What comes of it is
decided in one place, L{kumotwist.queue.verdicts}, and carried out in another,
L{kumotwist.queue.fate}.
"""
