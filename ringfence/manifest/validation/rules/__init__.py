"""Rules that a schema cannot express: one function each, which yields violations.

A rule takes a cursor on the whole document, with all defaults filled in, and some take the
manifest's directory. It must accept any document, since the schema's violations are reported in
the same run. To add a rule, write its function in the module of its subject and enter it below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ringfence.manifest.validation.cursor import Cursor
from ringfence.manifest.validation.problem import Violation
from ringfence.manifest.validation.rules import (
    accounts,
    callers,
    cloud,
    flows,
    gateway,
    hosts,
    keys,
    network,
    secrets,
    servers,
    trust,
)

Rule = Callable[[Cursor], Iterator[Violation]]
FileRule = Callable[[Cursor, Path], Iterator[Violation]]

RULES: tuple[Rule, ...] = (
    network.segments_are_networks,
    network.segments_do_not_overlap,
    network.there_is_a_management_segment,
    network.segments_fit_the_cloud,
    network.services_are_addresses,
    network.proxy_is_an_address,
    hosts.names_are_free,
    hosts.names_of_own_hosts_are_free,
    hosts.full_names_fit,
    hosts.segments_exist,
    hosts.addresses_are_given,
    hosts.addresses_lie_in_their_segment,
    hosts.addresses_are_unique,
    hosts.ports_are_unique,
    flows.ends_exist,
    flows.ends_differ,
    flows.are_unique,
    flows.leave_ssh_to_management,
    servers.names_are_free,
    servers.places_exist,
    servers.places_are_for_servers,
    servers.egress_is_enforceable,
    servers.egress_is_unique,
    servers.programs_are_the_packages,
    servers.placeholders_are_known,
    servers.arguments_hold_no_secrets,
    gateway.has_a_host,
    gateway.edge_hosts_have_a_gateway,
    gateway.edge_hosts_are_in_an_edge_segment,
    gateway.is_not_bypassed,
    gateway.token_binding_fits_certificates,
    gateway.responders_are_no_agents,
    gateway.issuers_differ,
    gateway.issuers_can_be_reached,
    secrets.are_used,
    secrets.readers_exist,
    secrets.readers_run_no_servers,
    callers.roles_grant_what_exists,
    callers.principals_have_roles_that_exist,
    callers.agents_have_a_person,
    callers.people_are_distinct,
    callers.sensitive_tools_have_approvers,
    callers.approvers_are_people,
    callers.someone_else_can_approve,
    accounts.are_free,
    accounts.people_are_distinct,
    keys.literal_keys_are_strong,
    trust.sink_is_a_collector,
    trust.sink_has_an_address,
    trust.authority_files_are_used,
    cloud.names_fit,
    cloud.region_has_the_zones,
    cloud.macie_is_in_the_region,
    cloud.segments_lie_in_one_network,
    cloud.segments_have_no_ipv6,
    cloud.addresses_can_be_reached,
    cloud.machines_are_known,
    cloud.egress_network_fits,
    cloud.domains_have_an_egress_firewall,
    cloud.domains_are_reached_over_tcp,
    cloud.private_links_exist,
    cloud.published_gateway_exists,
)

FILE_RULES: tuple[FileRule, ...] = (
    keys.key_files_hold_public_keys,
    keys.keys_are_personal,
    trust.paths_can_be_resolved,
)

WARNINGS: tuple[FileRule, ...] = (gateway.definitions_are_approved,)
"""Rules about what is allowed, but will surprise."""


def violations(document: Any, directory: Path) -> Iterator[Violation]:
    manifest = Cursor(document)
    for rule in RULES:
        yield from rule(manifest)
    for rule in FILE_RULES:
        yield from rule(manifest, directory)


def warnings(document: Any, directory: Path) -> Iterator[Violation]:
    """Yield the warnings about a document without violations."""
    for rule in WARNINGS:
        yield from rule(Cursor(document), directory)
