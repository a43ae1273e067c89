"""Message IDs and the memory of responses (RFC 7296 2.1-2.3)."""

from ike.window import LAST_MESSAGE_ID, Arrival, RequestWindow, ResponseWindow


def test_request_waits_for_the_answer_before_it() -> None:
    window: RequestWindow[str] = RequestWindow(5)
    assert window.is_open
    assert window.send("a", (b"1",)) == 5
    assert not window.is_open
    assert window.answered(4) is None
    assert window.answered(5) == "a"
    assert window.is_open
    assert window.send("b", (b"2",)) == 6


def test_request_x_waits_for_the_answers_up_to_x_minus_n() -> None:
    window: RequestWindow[str] = RequestWindow()
    window.size = 3
    for name in "abc":
        window.send(name, ())
    assert not window.is_open
    window.answered(1)
    window.answered(2)
    assert not window.is_open, "the answer to 0 is missing, so 3 has to wait"
    window.answered(0)
    assert window.is_open


def test_message_ids_end() -> None:
    window: RequestWindow[str] = RequestWindow(LAST_MESSAGE_ID)
    assert window.is_open
    window.send("last", ())
    window.answered(LAST_MESSAGE_ID)
    assert not window.is_open


def test_response_is_remembered_until_the_next_request() -> None:
    window = ResponseWindow(1)
    assert window.classify(1, b"one") is Arrival.NEW
    window.answered(1, b"one", (b"answer",))
    assert window.classify(1, b"one") is Arrival.RETRANSMISSION
    assert window.response_to(1) == (b"answer",)
    assert window.classify(2, b"two") is Arrival.NEW
    window.answered(2, b"two", ())
    assert window.classify(1, b"one") is Arrival.FORGOTTEN
    assert window.classify(0, b"zero") is Arrival.FORGOTTEN


def test_other_octets_under_an_answered_id_are_no_retransmission() -> None:
    window = ResponseWindow()
    window.answered(0, b"request", (b"answer",))
    assert window.classify(0, b"another") is Arrival.ANSWERED


def test_ids_beyond_the_window_are_outside() -> None:
    window = ResponseWindow()
    assert window.classify(1, b"") is Arrival.OUTSIDE
    assert window.classify(LAST_MESSAGE_ID, b"") is Arrival.OUTSIDE


def test_larger_window_takes_requests_in_any_order() -> None:
    window = ResponseWindow(size=3)
    for message_id in (2, 0):
        assert window.classify(message_id, b"") is Arrival.NEW
        window.answered(message_id, b"", (bytes([message_id]),))
    assert window.next_id == 1
    assert window.classify(1, b"") is Arrival.NEW
    assert window.classify(3, b"") is Arrival.NEW
    assert window.classify(4, b"") is Arrival.OUTSIDE
    window.answered(1, b"", ())
    assert window.next_id == 3
    assert window.response_to(2) == (b"\x02",)
