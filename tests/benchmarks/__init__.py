"""Benchmarks, for `make bench`: not part of the tests, and no test looks at a clock."""
