"""A case that failed beside others and passed alone says both."""

from interop.__main__ import Outcome, second_attempt


def test_the_second_attempt_tells_of_the_first() -> None:
    first = {"name": "a", "result": "failed", "evidence": ["CheckError: a ping was lost"]}
    again = second_attempt(Outcome(0, {"name": "a", "result": "passed", "evidence": ["seen"]}, None), first)
    assert again.result["result"] == "passed"
    assert again.result["evidence"] == [
        "at the second attempt, alone; the first: CheckError: a ping was lost",
        "seen",
    ]
