"""The cases: each makes something happen between us and another program, and looks at the wire."""

from __future__ import annotations

from . import (
    beyond,
    certificates,
    classes,
    demo,
    ike_algorithms,
    ike_auth,
    ike_config,
    ike_fragmentation,
    inner_router,
    libreswan,
    life,
    linux_host,
    linux_pe,
    mobike,
    native,
    paths,
    scripts,
    strongswan,
)
from .case import Case

CASES: tuple[Case, ...] = (
    *demo.CASES,
    *native.CASES,
    *linux_pe.CASES,
    *inner_router.CASES,
    *linux_host.CASES,
    *classes.CASES,
    *strongswan.CASES,
    *certificates.CASES,
    *ike_algorithms.CASES,
    *ike_auth.CASES,
    *ike_fragmentation.CASES,
    *ike_config.CASES,
    *life.CASES,
    *paths.CASES,
    *mobike.CASES,
    *libreswan.CASES,
    *scripts.CASES,
    *beyond.CASES,
)
