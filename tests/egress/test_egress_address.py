"""Which hosts and addresses pass, and how odd spellings are read."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.egress.address import RefusedError, authority, canonical, literal, local_name, resolve, special, vet
from verifier.egress.transport import reads_as

REFUSED = {
    "0.0.0.0": "unspecified",  # noqa: S104  # the point of the test
    "0.1.2.3": "unspecified",
    "10.0.0.1": "private",
    "10.255.255.255": "private",
    "100.64.0.1": "carrier-grade NAT",
    "100.127.255.254": "carrier-grade NAT",
    "127.0.0.1": "loopback",
    "127.8.8.8": "loopback",
    "168.63.129.16": "a cloud's metadata service",
    "169.254.169.254": "link-local",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.192": "reserved",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4 relay",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarking",
    "198.19.255.255": "benchmarking",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "::127.0.0.1": "reserved",
    "::ffff:127.0.0.1": "an IPv4-mapped form",
    "::ffff:8.8.8.8": "an IPv4-mapped form",
    "64:ff9b::7f00:1": "a NAT64 form",
    "64:ff9b::808:808": "a NAT64 form",
    "64:ff9b:1::1": "a NAT64 form",
    "100::1": "reserved",
    "2001:0:7f00:1::": "Teredo",
    "2001:2::1": "benchmarking",
    "2001:20::1": "reserved",
    "2001:db8::1": "documentation",
    "2002:7f00:1::": "6to4",
    "2002:c0a8:101::1": "6to4",
    "3fff::1": "documentation",
    "fc00::1": "private",
    "fd00:ec2::254": "private",
    "fe80::1": "link-local",
    "fec0::1": "private",
    "ff02::1": "multicast",
    "4000::1": "reserved",
}
PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "128.0.0.1",
    "169.253.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "192.1.0.1",
    "198.17.0.1",
    "198.20.0.1",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700::1111",
    "2a00:1450:4001::1",
)


@pytest.mark.parametrize(("text", "why"), REFUSED.items())
def test_special_addresses_are_refused_unless_named(text: str, why: str) -> None:
    address = ip_address(text)
    assert vet(address, ()) == why
    assert vet(address, (ip_network("8.0.0.0/8"),)) == why
    assert vet(address, (ip_network(f"{text}/{address.max_prefixlen}"),)) is None


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_pass(text: str) -> None:
    assert vet(ip_address(text), ()) is None


@given(st.ip_addresses())
def test_nothing_that_python_calls_private_passes(address: object) -> None:
    found = ip_address(str(address))
    if found.is_private or found.is_link_local or found.is_multicast or found.is_reserved or found.is_loopback:
        assert special(found)


def test_a_mapped_form_is_not_let_in_by_the_range_it_maps() -> None:
    assert vet(ip_address("::ffff:127.0.0.1"), (ip_network("127.0.0.0/8"),)) == "an IPv4-mapped form"


@pytest.mark.parametrize(
    ("host", "read"),
    [
        ("API.Example.COM", "api.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("under_score.example", "under_score.example"),
        ("2130706433", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("169.254.43518", "169.254.169.254"),
        ("0xa9.0xfe.0xa9.0xfe", "169.254.169.254"),
        ("0x", "0.0.0.0"),  # noqa: S104  # an address that must be refused
        ("[::1]", "::1"),
        ("[0:0:0:0:0:FFFF:7f00:1]", "::ffff:7f00:1"),
        ("[::ffff:127.0.0.1]", "::ffff:7f00:1"),
        ("1.2.3.4.example", "1.2.3.4.example"),
    ],
)
def test_hosts_are_read_as_the_client_reads_them(host: str, read: str) -> None:
    assert literal(read) == literal(canonical(host)) if literal(read) else canonical(host) == read
    assert reads_as(canonical(host)) == canonical(host)
    if ":" not in host:
        assert reads_as(host) == canonical(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a..b",
        "example.com.",
        "-a.example",
        "a-.example",
        "a b",
        "a\tb",
        "a/b",
        "a\\b",
        "a%2eb",
        "bücher.example",
        "127。0。0。1",
        "①.example",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.256",
        "08.1.1.1",
        "99999999999",
        "[::1",
        "::1",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "[v1.x]",
        "a" * 64 + ".example",
        ".".join(["a" * 60] * 5),
    ],
)
def test_anything_else_is_no_host(host: str) -> None:
    with pytest.raises(RefusedError):
        canonical(host)


@given(st.text(st.sampled_from("0123456789abcdefx.-_:[]"), min_size=1, max_size=24))
def test_client_and_door_never_disagree_about_a_host(host: str) -> None:
    try:
        mine = canonical(host)
    except RefusedError:
        return
    theirs = reads_as(host.strip("[]") if host.startswith("[") else host)
    if theirs is None:
        return  # the client refuses what we let through: harmless
    assert theirs == mine or literal(theirs) == literal(mine) is not None


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("example.com", ("example.com", 443)),
        ("example.com:8443", ("example.com", 8443)),
        ("[::1]", ("::1", 443)),
        ("[::1]:8443", ("::1", 8443)),
    ],
)
def test_authorities(text: str, read: tuple[str, int]) -> None:
    assert authority(text, 443) == read


@pytest.mark.parametrize("text", ["u@h", "u:p@h", "h:", "h:0", "h:65536", "h:1x", "h:٣", "h:-1", ":80", "h:123456789"])
def test_bad_authorities(text: str) -> None:
    with pytest.raises(RefusedError):
        authority(text, 443)


@pytest.mark.parametrize(
    "name", ["metadata.google.internal", "instance-data", "localhost", "a.localhost", "nas.local", "x.svc", "intranet"]
)
def test_names_inside_a_network(name: str) -> None:
    assert local_name(name)


def test_other_names_are_not_local() -> None:
    assert not local_name("api.example.com")


async def test_resolve_asks_the_system() -> None:
    assert "127.0.0.1" in await resolve("localhost", 443)
    with pytest.raises(socket.gaierror):
        await resolve("a" * 64 + ".invalid", 443)
