"""The torture command: C{python -m tests.torture [--rounds N] [SCENARIO...]}."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tests.run import Options, run_suite
from tests.torture import scenarios

#: Of so many rounds together, how many each scenario gets.
_SHARES = {
    "node_killed": 50,
    "proxy_killed": 12,
    "haproxy_killed": 10,
    "sink_resets": 12,
    "disk_fills": 10,
    "clock_jumps": 6,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios.

    @return: the exit status: 0 if nothing was lost.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--rounds", type=int, default=500, help="in all (default 500)")
    parser.add_argument("--seed", type=int, default=5, help="of what is random")
    parser.add_argument("--temp-directory", default="_trial_temp_torture")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(_SHARES))
    options = parser.parse_args(arguments)
    chosen = options.scenarios or list(_SHARES)
    unknown = [name for name in chosen if name not in _SHARES]
    if unknown:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(_SHARES)}")
    whole = sum(_SHARES[name] for name in chosen)
    for name in chosen:
        scenarios.ROUNDS[f"test_{name}"] = max(1, options.rounds * _SHARES[name] // whole)
    scenarios.Torture.seed = options.seed
    names = [f"tests.torture.scenarios.Torture.test_{name}" for name in chosen]
    counts = run_suite(names, sys.stdout, Options(working_directory=options.temp_directory))
    sys.stdout.write(f"{counts}\n")
    return 0 if counts.successful and not counts.skipped else 1


if __name__ == "__main__":
    sys.exit(main())
