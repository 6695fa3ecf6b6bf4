# Every everyday task is one command; `make help` lists them.
# Needs make and Python 3.11 or newer, nothing else: the rest goes into .venv.

PYTHON ?= python3
VENV ?= .venv
CONFIG ?= etc/kumo.ini
JOBS ?= 2
ROUNDS ?= 500
MESSAGES ?= 100000
QUESTION ?= reused single

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run check-config test unit integration lint types format real-parts test-netns torture bench-all bench-relay bench-proxy bench-proxy-idle bench-spool bench-queues bench-calls reference dist clean check-python

bin := $(VENV)/bin
requirements := setup.cfg pyproject.toml

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Only rules that create .venv depend on this, and only when there is none: the second run is quick.
check-python:
	@command -v '$(PYTHON)' >/dev/null 2>&1 || { \
	  echo "make: there is no '$(PYTHON)'. Install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: kumotwist needs Python 3.11 or newer, and $(PYTHON) is $$('$(PYTHON)' --version 2>&1)." >&2; \
	  echo "      Name a newer one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: $(PYTHON) comes without its venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(bin)/python: | check-python
	@echo "Creating $(VENV) with $$('$(PYTHON)' --version)"
	@'$(PYTHON)' -m venv '$(VENV)'

# The plugin cache is filled here, once, so that no later start has to do it.
fill_cache = '$(bin)/python' -c 'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))'

$(VENV)/.installed: $(requirements) | $(bin)/python
	@echo "Installing kumotwist into $(VENV)"
	@'$(bin)/python' -m pip install --quiet --disable-pip-version-check --editable .
	@$(fill_cache)
	@touch '$@'

$(VENV)/.installed-dev: $(requirements) | $(bin)/python
	@echo "Installing kumotwist and its development tools into $(VENV)"
	@'$(bin)/python' -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@$(fill_cache)
	@touch '$(VENV)/.installed' '$@'

run: $(VENV)/.installed ## install into .venv and run the MTA with etc/kumo.ini in the foreground
	@exec '$(bin)/twistd' -n kumo -c '$(CONFIG)'

check-config: $(VENV)/.installed ## check a configuration: make check-config CONFIG=etc/kumo.ini
	@'$(bin)/twistd' -n kumo -c '$(CONFIG)' --check

test: $(VENV)/.installed-dev ## unit tests and integration tests with what real parts there are (JOBS=2 at once)
	@'$(bin)/python' -m tests.run --jobs '$(JOBS)' unit integration

unit: $(VENV)/.installed-dev ## unit tests only
	@'$(bin)/python' -m tests.run unit

integration: $(VENV)/.installed-dev ## integration tests only
	@'$(bin)/python' -m tests.run --jobs '$(JOBS)' integration

test-netns: $(VENV)/.installed-dev ## MTAs, proxies, name servers and MX hosts on network namespaces of their own (needs root)
	@'$(bin)/python' -m tests.run tests.netns

lint: $(VENV)/.installed-dev ## ruff's checks, formatting and mypy; changes nothing
	@'$(bin)/ruff' check .
	@'$(bin)/ruff' format --check .
	@'$(bin)/mypy'

types: $(VENV)/.installed-dev ## mypy alone
	@'$(bin)/mypy'

format: $(VENV)/.installed-dev ## format the code and sort the imports
	@'$(bin)/ruff' format .
	@'$(bin)/ruff' check --fix .

real-parts: ## install HAProxy, Dante, microsocks, swaks, Postfix … from Debian's packages (needs root)
	@sh tests/integration/real-parts.sh

torture: $(VENV)/.installed-dev ## kill the node, proxies and disks at random while mail flows (20 minutes; ROUNDS=500)
	@'$(bin)/python' -m tests.torture --rounds '$(ROUNDS)'

bench-all: $(VENV)/.installed ## every question about speed, on a machine that does nothing else (20 minutes): var/bench-all.md
	@'$(bin)/python' -m benchmarks.everything

bench-relay: $(VENV)/.installed ## kumotwist as a relay beside its peers; make bench-relay QUESTION="reused tls" (docs/performance.md)
	@'$(bin)/python' -m benchmarks.relay $(QUESTION)

bench-spool: $(VENV)/.installed ## start a node over MESSAGES=100000 queued messages: time, memory, delivery meanwhile
	@'$(bin)/python' -m benchmarks.spool --messages '$(MESSAGES)'

bench-calls: $(VENV)/.installed ## calls and CPU for a message, without a network (half a minute; docs/performance.md)
	@'$(bin)/python' -m benchmarks.calls

bench-queues: $(VENV)/.installed ## what a million messages in 100,000 scheduled queues cost (1 minute, 1.5 GB)
	@'$(bin)/python' -m benchmarks.queues

bench-proxy: $(VENV)/.installed ## KumoProxy beside Dante and microsocks: new connections and bulk (2 minutes)
	@'$(bin)/python' -m benchmarks.proxy

bench-proxy-idle: $(VENV)/.installed ## KumoProxy with 10,000 idle clients: memory, and a live session beside them
	@'$(bin)/python' -m benchmarks.proxy_idle

reference: $(VENV)/.installed ## write docs/reference.md anew from the declared settings
	@'$(bin)/python' -m kumotwist.config.reference > docs/reference.md.new
	@mv docs/reference.md.new docs/reference.md

dist: $(VENV)/.installed-dev ## build the source archive and the wheel into dist/
	@'$(bin)/python' -m build

clean: ## remove what the commands above made, the state in var/ excepted
	@rm -rf '$(VENV)' build dist *.egg-info _trial_temp* .hypothesis .mypy_cache .ruff_cache .coverage*
	@rm -f twistd.pid twisted/plugins/dropin.cache
	@find kumotwist tests twisted -type d -name __pycache__ -prune -exec rm -rf {} +
