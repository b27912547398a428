"""What the README says of known attacks is shown by tests that there are."""

import re

from tests.bundle import ROOT

CVE = re.compile(r"CVE-\d{4}-\d{4,}")


def rows() -> list[list[str]]:
    section = (ROOT / "README.md").read_text().partition("\n## Known attacks\n")[2]
    lines = section.partition("\n## ")[0].splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]


def names_of_tests() -> set[str]:
    texts = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    return {name for text in texts for name in re.findall(r"^def (test_\w+)\(", text, re.MULTILINE)}


def test_each_attack_has_a_test_that_there_is() -> None:
    named = {row[0]: re.findall(r"`(test_\w+)`", row[3]) for row in rows()}

    assert all(named.values())
    assert {test for tests in named.values() for test in tests} - names_of_tests() == set()


def test_no_attack_stands_in_two_rows() -> None:
    named = [number for row in rows() for number in CVE.findall(row[0])]

    assert len(named) == len(set(named)) > 40
