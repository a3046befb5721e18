#!/usr/bin/env bash
# The whole promise on this machine: fresh hosts, measured, hardened, measured again, used.
# Called by `make demo`, which sets up what it needs.
set -euo pipefail
environment=$1 release=$2 cloud=inventories/aws-example/environment.yaml
# Ctrl-C ends the demo, whatever the command that it reached makes of it.
trap 'exit 130' INT

step() { printf '\n\033[1m▸ [%3ds] %s\033[0m\n' "$SECONDS" "$*"; }
show() {
  local word line='$'
  for word in "$@"; do [[ $word =~ ^[[:alnum:]_./:=-]+$ ]] || word=${word@Q}; line+=" $word"; done
  printf '\033[2m%s\033[0m\n' "$line" >&2
}
run() { show "$@"; "$@"; }
client() {
  show ringfence "$@"
  ringfence lab exec --environment "$environment" client -- \
    ringfence "$@" --environment "$environment"
}
refused() { if "$@"; then echo 'this should have been refused' >&2; exit 1; fi; }
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

step 'Tools, through the gateway: allowed, masked, denied, and with the consent of a second person'
create=(sqlite create_table '{"query": "create table ticket_4711 (street text)"}')
client call time get_current_time '{"timezone": "UTC"}' --as carol
client call sqlite read_query '{"query": "select '"'jane.doe@example.org'"' as email"}' --as carol
refused client call time get_current_time '{"timezone": "UTC"}' --as clock-agent
refused client call "${create[@]}" --as carol
asked=$(client grant request sqlite create_table --for 10m --reason 'a table for ticket 4711' --as carol)
printf '%s\n' "$asked"
client grant approve "$(grep -m1 -oE '\b[0-9a-f]{32}\b' <<<"$asked")" --as dana
client call "${create[@]}" --as carol

step 'The same in the record of the log collector'
record='timeout 30 sh -c "until grep -q grants/approve $0; do sleep 0.2; done"; sleep 1; cat $0'
ringfence lab exec --environment "$environment" siem-1 -- \
  sh -c "$record" "/var/log/ringfence/edge-1/$(date -u +%F).jsonl" |
  run ringfence decisions | tail -n 9

rehearse

step "Done. The report: $PWD/reports/latest/compliance.html"
