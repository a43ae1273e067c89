"""Which of our addresses can be used, as the kernel tells it."""

from endpoint.address_monitor import _usable


def test_an_address_that_is_not_ours_cannot_be_used() -> None:
    assert _usable(("127.0.0.1", "203.0.113.77"), None) == ("127.0.0.1",)


def test_an_address_is_looked_for_through_the_front_doors_device() -> None:
    assert _usable(("127.0.0.1",), "lo") == ("127.0.0.1",)
    assert _usable(("127.0.0.1",), "gone0") == ()
