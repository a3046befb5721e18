#!/usr/bin/env bash
# The whole promise on this machine: fresh hosts, measured, hardened, measured again, used.
# Called by `make demo`, which sets up what it needs.
set -euo pipefail
environment=$1 release=$2 cloud=inventories/aws-example/environment.yaml
# Ctrl-C ends the demo, whatever the command that it reached makes of it.
trap 'exit 130' INT

step() { printf '\n\033[1m▸ [%3ds] %s\033[0m\n' "$SECONDS" "$*"; }
run() { { printf '\033[2m$'; printf ' %q' "$@"; printf '\033[0m\n'; } >&2; "$@"; }
rehearse() {
  step 'The same in AWS: the stacks of another manifest, in an emulated account'
  run ringfence rehearse "$cloud" | sed -n '/resources to create/,$p'
  # A new account, as AWS gives it, fails: that is what the measurement is for.
  run pytest tests/compliance --environment "$cloud" --rehearsed --measurement before -q || [ $? = 1 ]
  run pytest tests/compliance --environment "$cloud" --rehearsed
}

step 'What the environment is'
run ringfence validate "$environment"

if ! run ringfence lab up --fresh --environment "$environment" --release "$release"; then
  step 'Without a lab: everything that runs without hosts'
  run ansible-inventory -i "$environment" --graph
  run ansible-playbook -i "$environment" playbooks/harden.yml --syntax-check
  rehearse
  exit 2
fi

step 'Compliance before'
# Failures are the expected result here; only a run that measured nothing stops the demo.
run pytest tests/compliance --environment "$environment" --measurement before || [ $? = 1 ]

step 'Harden'
run ansible-playbook -i "$environment" playbooks/harden.yml

step 'Compliance after'
run pytest tests/compliance --environment "$environment"

step 'An MCP tool, over the hardened path'
run ringfence lab exec --environment "$environment" client -- \
  ringfence call --environment "$environment" --as carol time get_current_time '{"timezone": "UTC"}'

rehearse

step "Done. The report: $PWD/reports/latest/compliance.html"
