"""The programs that the lab runs: other people's, and ours as a user runs it."""
