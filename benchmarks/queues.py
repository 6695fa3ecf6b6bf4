"""What waiting costs: a million messages in a hundred thousand scheduled queues.

Prints microseconds of CPU for each message that is inserted and taken out, and octets of memory for
each message besides the message itself.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
import tracemalloc
from typing import Any

import click
from twisted.internet.task import Clock

from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.fairness import FairQueue
from kumotwist.queue.waiting import ScheduledQueue, Waiting


def build(number: int, queues: int) -> list[QueuedMessage]:
    """Messages of many queues, due within a day."""
    dice = random.Random(1)
    names = [f"t{each % 1000}@d{each}.example" for each in range(queues)]
    return [
        QueuedMessage(
            f"{each:032x}", "", "x@d.example", names[dice.randrange(queues)], 1000, 0.0,
            1.0 + dice.random() * 86398,
        )
        for each in range(number)
    ]  # fmt: skip


def per_message(begun: float, number: int) -> float:
    """Microseconds of CPU for each message since a moment."""
    return (time.process_time() - begun) / number * 1e6


def measure_waiting(messages: list[QueuedMessage]) -> None:
    """Scheduled queues: insert all, let a day pass."""
    clock = Clock()
    served = 0

    def serve(queue: ScheduledQueue) -> None:
        nonlocal served
        while batch := waiting.pop(queue, clock.seconds(), 100):
            served += len(batch)
        waiting.settle(queue)

    waiting = Waiting(clock, serve)
    begun = time.process_time()
    for message in messages:
        waiting.push(message)
    click.echo(
        f"insert: {per_message(begun, len(messages)):.2f} us a message, {waiting.queues} queues"
    )
    begun = time.process_time()
    for _ in range(24 * 60):
        clock.advance(60.0)
        while any(call.getTime() <= clock.seconds() for call in clock.getDelayedCalls()):
            clock.advance(0)
    click.echo(f"take out when due: {per_message(begun, len(messages)):.2f} us a message")
    click.echo(f"left: {len(waiting)} messages, {waiting.queues} queues, {served} served")


def measure_turns(messages: list[QueuedMessage]) -> None:
    """Taking turns: all in one ready queue."""
    queue = FairQueue()
    begun = time.process_time()
    queue.add(messages)
    click.echo(f"turns, insert: {per_message(begun, len(messages)):.2f} us a message")
    begun = time.process_time()
    while queue:
        queue.take(1)
    click.echo(f"turns, take out: {per_message(begun, len(messages)):.2f} us a message")


def measure_memory(messages: list[QueuedMessage]) -> None:
    """What the queues keep besides the messages."""
    nobody: Any = None
    waiting = Waiting(Clock(), nobody)
    for message in messages:
        message.sleep()
    tracemalloc.start()
    for message in messages:
        waiting.push(message)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    click.echo(f"memory: {kept / len(messages):.0f} octets a message besides the message")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--queues", type=int, default=100_000)
    arguments = parser.parse_args()
    messages = build(arguments.messages, arguments.queues)
    click.echo(f"{arguments.messages} messages, {arguments.queues} queues")
    measure_waiting(messages)
    measure_turns(messages)
    measure_memory(messages)
    click.echo(f"peak: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB, all told")


if __name__ == "__main__":
    main()
