"""Long runs: `make soak`, or `python -m tests.soak [--only WORD] [--scale 0.01] [--list]`.

One module `soak_<name>.py` is one soak. Its docstring's first line is its title, and it has

    def soak(run: Run) -> None

which does `run.cases(N)` cases (N at `--scale 1`), calls `run.step(text)` after each of them, and raises
(AssertionError, as tests do) when what it claims does not hold; the message says how to replay it. `run.step` prints
progress now and then and ends the soak that runs longer than its LIMIT_S (module constant, 1800 by default).
One that makes network namespaces says NEEDS_ROOT = True. What it puts into `run.figures` (anything that JSON has) is
in build/soak.json beside its outcome; a run of less than all (`--only`, `--scale`) writes build/soak-some.json instead.

`tests/test_soaks.py` runs every soak with a handful of cases, so that none of them rots. How quick something is may
be asserted only where that many cases are done that it is no matter of luck.
"""
