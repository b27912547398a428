"""``corectl host check``: by which ways crashes will arrive, and why not by the others."""

import os
from argparse import Namespace
from collections.abc import Sequence

from services.corectl.host_facts import HostFacts, look
from services.corectl.host_ways import Way, judge, pattern_fault
from services.corectl.settings import CorectlSettings
from services.corectl.show import complain, json_of, safe


def check(settings: CorectlSettings, args: Namespace) -> int:
    """Look at the host, tell every way, and say each fault of the one in use."""
    facts = look(settings)
    ways = judge(facts)
    if args.json:
        print(json_of(_document(facts, ways)))
    else:
        show(facts, ways)
    for fault in faults_of(facts, ways):
        complain(fault)
    return os.EX_OK if is_well(facts, ways) else 1


def is_well(facts: HostFacts, ways: Sequence[Way]) -> bool:
    """Say whether crashes will arrive."""
    return not faults_of(facts, ways) and any(way.works for way in ways)


def faults_of(facts: HostFacts, ways: Sequence[Way]) -> list[str]:
    """Say what is wrong with the way that is in use, or that none is."""
    nowhere = pattern_fault(facts)
    return [
        *([nowhere] if nowhere else ()),
        *(fault for way in ways if way.is_in_use for fault in way.faults),
    ]


def show(facts: HostFacts, ways: Sequence[Way]) -> None:
    """Print how the host is, and every way."""
    pattern = facts.pattern
    version = f" {pattern.version}" if pattern.version else ""
    print(f"core_pattern: {safe(pattern.text) or 'empty'}")
    print(f"              {pattern.form}, {safe(pattern.name)}{version}, Linux {facts.release}")
    print()
    for way in ways:
        print(f"{way.name:<14}{_verdict(way)}")
        for fault in () if way.is_in_use else way.faults:
            print(f"{'':<14}{fault}")
        for note in way.notes:
            print(f"{'':<14}{note}")


def _verdict(way: Way) -> str:
    if way.works:
        return "crashes arrive"
    return "in use, but crashes do not all arrive" if way.is_in_use else "not in use"


def _document(facts: HostFacts, ways: Sequence[Way]) -> dict[str, object]:
    shown = [
        {
            "name": way.name,
            "in_use": way.is_in_use,
            "works": way.works,
            "faults": way.faults,
            "notes": way.notes,
        }
        for way in ways
    ]
    return {
        "ok": is_well(facts, ways),
        "faults": faults_of(facts, ways),
        "ways": shown,
        "facts": facts,
    }
