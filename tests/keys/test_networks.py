from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from django_apikeys.keys.networks import contains, normalise_network, outside, parse_address

one_second = settings(max_examples=200, deadline=None)

addresses = st.ip_addresses()
ipv4_addresses = st.ip_addresses(v=4)
ipv4_networks = st.builds(
    lambda address, length: ip_network((address, length), strict=False),
    ipv4_addresses,
    st.integers(0, 32),
)
# Few of them, so that what is drawn meets.
networks = st.sampled_from(
    ["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "10.0.0.0/7", "10.1.2.3", "0.0.0.0/0", "::/0"]
)


def parsed(text):
    """Return the address of *text*, which is one."""
    address = parse_address(text)
    assert address is not None
    return address


class TestParseAddress:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            pytest.param("192.0.2.1", "192.0.2.1", id="IPv4"),
            pytest.param(" 192.0.2.1\n", "192.0.2.1", id="white space around"),
            pytest.param("192.0.2.1:8080", "192.0.2.1", id="IPv4 with port"),
            pytest.param("2001:db8::1", "2001:db8::1", id="IPv6"),
            pytest.param("2001:DB8:0:0::1", "2001:db8::1", id="IPv6 written otherwise"),
            pytest.param("2001:db8::1:8080", "2001:db8::1:8080", id="IPv6 has no bare port"),
            pytest.param("[2001:db8::1]", "2001:db8::1", id="brackets"),
            pytest.param("[2001:db8::1]:8080", "2001:db8::1", id="brackets and port"),
            pytest.param("fe80::1%eth0", "fe80::1", id="zone"),
            pytest.param("[fe80::1%eth0]:8080", "fe80::1", id="zone in brackets with port"),
            pytest.param("::ffff:192.0.2.1", "192.0.2.1", id="mapped"),
            pytest.param("::ffff:c000:201", "192.0.2.1", id="mapped in hex"),
            pytest.param("0:0:0:0:0:ffff:c000:0201", "192.0.2.1", id="mapped in full"),
            pytest.param("::FFFF:192.0.2.1", "192.0.2.1", id="mapped in capitals"),
            pytest.param("[::ffff:192.0.2.1]:80", "192.0.2.1", id="mapped in brackets"),
            pytest.param("::ffff:192.0.2.1%eth0", "192.0.2.1", id="mapped with zone"),
            pytest.param("::ffff:0.0.0.0", "0.0.0.0", id="mapped zero"),  # noqa: S104 - a value
            pytest.param("::1", "::1", id="loopback"),
        ],
    )
    def test_address(self, text, expected):
        assert str(parse_address(text)) == expected

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param("", id="empty"),
            pytest.param(" ", id="blank"),
            pytest.param("unix:", id="unix"),
            pytest.param("/run/gunicorn.sock", id="socket path"),
            pytest.param("localhost", id="name"),
            pytest.param("unknown", id="unknown"),
            pytest.param("-", id="dash"),
            pytest.param("%", id="zone alone"),
            pytest.param("[]", id="empty brackets"),
            pytest.param("[::1", id="open bracket"),
            pytest.param("::1]", id="closing bracket"),
            pytest.param("[[::1]]", id="brackets twice"),
            pytest.param("[::1]x", id="text after brackets"),
            pytest.param("192.0.2.1:", id="no port after the colon"),
            pytest.param("192.0.2.1:http", id="port by name"),
            pytest.param("192.0.2", id="three numbers"),
            pytest.param("192.0.2.256", id="number too large"),
            pytest.param("192.0.2.01", id="leading zero"),
            pytest.param("192.0.2.1, 198.51.100.1", id="two"),
            pytest.param("192.0.2.0/24", id="network"),
            pytest.param("3221225985", id="number"),
            pytest.param("0xC0000201", id="hex"),
            pytest.param("١٩٢.0.2.1", id="other digits"),
            pytest.param("192.0.2.1\x00", id="NUL"),
            pytest.param("1" * 100_000, id="100 kB"),
        ],
    )
    def test_rubbish(self, text):
        assert parse_address(text) is None

    @one_second
    @given(st.text())
    def test_no_text_raises(self, text):
        assert isinstance(parse_address(text), IPv4Address | IPv6Address | None)

    @one_second
    @given(addresses)
    def test_every_address_is_read_as_itself(self, address):
        expected = getattr(address, "ipv4_mapped", None) or address

        assert parse_address(str(address)) == expected


class TestNormaliseNetwork:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            pytest.param("192.0.2.1", "192.0.2.1", id="address stays bare"),
            pytest.param("192.0.2.0/24", "192.0.2.0/24", id="network"),
            pytest.param(" 192.0.2.0/24\n", "192.0.2.0/24", id="white space around"),
            pytest.param("192.0.2.0/255.255.255.0", "192.0.2.0/24", id="netmask"),
            pytest.param("192.0.2.1/32", "192.0.2.1/32", id="network of one"),
            pytest.param("0.0.0.0/0", "0.0.0.0/0", id="all of IPv4"),
            pytest.param("2001:DB8:0:0::1", "2001:db8::1", id="IPv6 address"),
            pytest.param("2001:0DB8::/32", "2001:db8::/32", id="IPv6 network"),
            pytest.param("::/0", "::/0", id="all of IPv6"),
            pytest.param("::ffff:192.0.2.1", "192.0.2.1", id="mapped address"),
            pytest.param("::ffff:192.0.2.0/120", "192.0.2.0/24", id="mapped network"),
            pytest.param("::ffff:c000:200/120", "192.0.2.0/24", id="mapped network in hex"),
            pytest.param("::ffff:0:0/96", "0.0.0.0/0", id="all that is mapped"),
            pytest.param("::fffe:0:0/95", "::fffe:0:0/95", id="more than is mapped"),
            pytest.param("2001:db8::/120", "2001:db8::/120", id="small but not mapped"),
        ],
    )
    def test_written_form(self, text, expected):
        assert normalise_network(text) == expected

    @pytest.mark.parametrize(
        ("text", "network"),
        [
            pytest.param("192.0.2.1/24", "192.0.2.0/24", id="IPv4"),
            pytest.param("2001:db8::1/64", "2001:db8::/64", id="IPv6"),
        ],
    )
    def test_host_bits_are_refused_with_the_network_that_was_meant(self, text, network):
        with pytest.raises(ValueError, match="host bits") as caught:
            normalise_network(text)

        assert str(caught.value) == f"“{text}” has host bits set; the network is {network}."

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param("", id="empty"),
            pytest.param("/", id="slash"),
            pytest.param("/24", id="no address"),
            pytest.param("192.0.2.0/", id="no length"),
            pytest.param("192.0.2.0/33", id="too long"),
            pytest.param("192.0.2.0/-1", id="negative"),
            pytest.param("192.0.2.0/24/8", id="two slashes"),
            pytest.param("192.0.2.1:80", id="port"),
            pytest.param("192.0.2.1-9", id="range"),
            pytest.param("192.0.2.*", id="wildcard"),
            pytest.param("[::1]", id="brackets"),
            pytest.param("example.com", id="name"),
            pytest.param("3221225985", id="number"),
            pytest.param("fe80::1%eth0", id="zone"),
            pytest.param("fe80::%eth0/64", id="network with zone"),
            pytest.param("fe80::1%\x00", id="NUL in a zone"),
            pytest.param("192.0.2.1\x00", id="NUL"),
        ],
    )
    def test_rubbish_is_refused(self, text):
        with pytest.raises(ValueError, match="is not an IP address or network") as caught:
            normalise_network(text)

        assert str(caught.value) == f"“{text}” is not an IP address or network."

    def test_a_long_text_is_quoted_in_part(self):
        with pytest.raises(ValueError, match="is not") as caught:
            normalise_network("x" * 100_000)

        assert str(caught.value) == f"“{'x' * 50}” is not an IP address or network."

    @one_second
    @given(addresses)
    def test_the_written_form_of_a_written_form_is_itself(self, address):
        once = normalise_network(str(address))

        assert normalise_network(once) == once


class TestContains:
    @pytest.mark.parametrize(
        ("networks", "address", "expected"),
        [
            pytest.param([], "192.0.2.1", False, id="no networks"),
            pytest.param(["192.0.2.1"], "192.0.2.1", True, id="the address"),
            pytest.param(["192.0.2.0/24"], "192.0.2.255", True, id="last of the network"),
            pytest.param(["192.0.2.0/24"], "192.0.3.0", False, id="first after the network"),
            pytest.param(["10.0.0.0/8", "192.0.2.0/24"], "192.0.2.1", True, id="second network"),
            pytest.param(["2001:db8::/32"], "2001:db8::1", True, id="IPv6"),
            pytest.param(["2001:db8::/32"], "192.0.2.1", False, id="IPv4 in IPv6"),
            pytest.param(["0.0.0.0/0"], "2001:db8::1", False, id="IPv6 in IPv4"),
            pytest.param(["::ffff:192.0.2.0/120"], "192.0.2.1", True, id="mapped network"),
            pytest.param(["192.0.2.0/24"], "::ffff:192.0.2.1", True, id="mapped address"),
            pytest.param(["rubbish"], "192.0.2.1", False, id="rubbish"),
            pytest.param(["rubbish", "192.0.2.1"], "192.0.2.1", True, id="rubbish beside"),
            pytest.param([None], "192.0.2.1", False, id="null"),
            pytest.param([["192.0.2.1"]], "192.0.2.1", False, id="list in the list"),
            pytest.param([3221225985], "192.0.2.1", False, id="number"),
            pytest.param(["192.0.2.1/24"], "192.0.2.1", False, id="host bits set"),
        ],
    )
    def test_address(self, networks, address, expected):
        assert contains(networks, parsed(address)) is expected

    @one_second
    @given(addresses, st.data())
    def test_every_address_is_inside_its_own_networks(self, address, data):
        length = data.draw(st.integers(0, address.max_prefixlen))
        network = ip_network((address, length), strict=False)
        # A network wider than all that is mapped is IPv6, its mapped addresses are IPv4.
        assume(length >= 96 or not getattr(address, "ipv4_mapped", None))

        stored = [normalise_network(str(network)), normalise_network(str(address))]

        assert all(contains([text], parsed(str(address))) for text in stored)

    @one_second
    @given(ipv4_addresses, st.integers(0, 32), st.integers(0, 31))
    def test_a_mapped_address_is_judged_as_the_bare_one(self, address, length, bit):
        neighbour = IPv4Address(int(address) ^ 1 << bit)
        network = str(ip_network((neighbour, length), strict=False))

        bare = contains([network], parsed(str(address)))
        mapped = contains([network], parsed(f"::ffff:{address}"))

        assert bare is mapped is (length + bit < 32)

    @one_second
    @given(ipv4_addresses)
    def test_a_mapped_entry_allows_what_the_bare_one_allows(self, address):
        for entry in (str(address), f"::ffff:{address}", f"::ffff:{address}/128"):
            assert contains([normalise_network(entry)], address)
            assert contains([entry], parsed(f"::ffff:{address}"))


class TestOutside:
    @pytest.mark.parametrize(
        ("networks", "others", "expected"),
        [
            pytest.param([], [], [], id="none"),
            pytest.param([], ["192.0.2.0/24"], [], id="none of a network"),
            pytest.param(["192.0.2.1"], [], ["192.0.2.1"], id="of none"),
            pytest.param(["192.0.2.1"], ["192.0.2.1"], [], id="the same address"),
            pytest.param(["192.0.2.1/32"], ["192.0.2.1"], [], id="the same, written otherwise"),
            pytest.param(["192.0.2.0/24"], ["192.0.2.0/24"], [], id="the same network"),
            pytest.param(["192.0.2.0/25"], ["192.0.2.0/24"], [], id="subnet"),
            pytest.param(["192.0.2.0/23"], ["192.0.2.0/24"], ["192.0.2.0/23"], id="supernet"),
            pytest.param(["192.0.3.0/24"], ["192.0.2.0/24"], ["192.0.3.0/24"], id="neighbour"),
            pytest.param(
                ["192.0.2.0/24"], ["192.0.2.128/25", "192.0.2.0/25"], [], id="two halves"
            ),
            pytest.param(
                ["192.0.2.0/24"],
                ["192.0.2.0/26", "192.0.2.64/26", "192.0.2.128/26", "192.0.2.192/26"],
                [],
                id="four quarters",
            ),
            pytest.param(
                ["192.0.2.0/24"],
                ["192.0.2.0/26", "192.0.2.64/26", "192.0.2.192/26"],
                ["192.0.2.0/24"],
                id="three quarters",
            ),
            pytest.param(
                ["192.0.3.0/24"],
                ["192.0.2.128/25", "192.0.3.0/25", "192.0.3.128/25"],
                [],
                id="two halves of three",
            ),
            pytest.param(["0.0.0.0/0"], ["0.0.0.0/1", "128.0.0.0/1"], [], id="all of IPv4"),
            pytest.param(["::/0"], ["::/1", "8000::/1"], [], id="all of IPv6"),
            pytest.param(["2001:db8::1"], ["2001:db8::/32"], [], id="IPv6"),
            pytest.param(["192.0.2.1"], ["::/0"], ["192.0.2.1"], id="IPv4 in IPv6"),
            pytest.param(["::1"], ["0.0.0.0/0"], ["::1"], id="IPv6 in IPv4"),
            pytest.param(["::ffff:192.0.2.1"], ["192.0.2.0/24"], [], id="mapped"),
            pytest.param(["192.0.2.1"], ["::ffff:192.0.2.0/120"], [], id="in mapped"),
            pytest.param(["rubbish"], ["192.0.2.0/24"], [], id="rubbish, which allows nobody"),
            pytest.param(["rubbish"], [], [], id="rubbish of none"),
            pytest.param(["192.0.2.1"], ["rubbish"], ["192.0.2.1"], id="in rubbish"),
            pytest.param(["192.0.2.1"], ["192.0.2.1/24"], ["192.0.2.1"], id="in host bits set"),
            pytest.param(["192.0.2.1"], ["rubbish", "192.0.2.1"], [], id="rubbish beside"),
            pytest.param(
                ["::1", "192.0.2.1", "10.0.0.0/8"],
                ["192.0.2.0/24"],
                ["::1", "10.0.0.0/8"],
                id="those outside, in their order",
            ),
        ],
    )
    def test_networks(self, networks, others, expected):
        assert outside(networks, others) == expected

    @one_second
    @given(st.lists(networks), st.lists(networks))
    def test_no_end_of_a_network_that_lies_within_is_outside(self, some, others):
        beyond = outside(some, others)

        within = [ip_network(text) for text in some if text not in beyond]

        assert all(
            contains(others, end) for network in within for end in (network[0], network[-1])
        )

    @one_second
    @given(st.lists(networks), st.lists(networks))
    def test_none_are_outside_of_themselves_and_more(self, some, more):
        assert outside(some, some) == outside(some, [*more, *some]) == []

    @one_second
    @given(ipv4_networks)
    def test_every_network_lies_within_its_two_halves(self, network):
        assume(network.prefixlen < 32)
        halves = [str(half) for half in network.subnets()]

        assert outside([str(network)], halves) == []
        assert outside([str(network)], halves[:1]) == [str(network)]
