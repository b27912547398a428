from hypothesis import given
from prometheus_client.parser import text_string_to_metric_families

from common.metrics import Family, Registry, Sample
from services.qkview_collect.exposition import render
from tests.unit.factories import hostile_texts


def test_a_family_has_its_help_its_type_and_a_line_for_each_series() -> None:
    registry = Registry()
    counter = registry.counter("crashes_total", "Crashes.\nMore \\.", ("by", "kind"))
    counter.add("guess", "file", amount=1.5)
    counter.add('a"b\\', "", amount=3)

    assert render(registry.families()).splitlines() == [
        r"# HELP coremond_crashes_total Crashes.\nMore \\.",
        "# TYPE coremond_crashes_total counter",
        'coremond_crashes_total{by="guess",kind="file"} 1.5',
        r'coremond_crashes_total{by="a\"b\\",kind=""} 3',
    ]


def test_no_value_of_a_label_forges_another_line() -> None:
    sample = Sample({"name": 'x"} 1\nforged{a="'}, 7)
    family = Family(name="crashes_total", kind="counter", help="x", samples=(sample,))

    [found] = text_string_to_metric_families(render([family]))

    assert [(one.labels, one.value) for one in found.samples] == [(sample.labels, 7)]


@given(hostile_texts, hostile_texts)
def test_whatever_a_process_is_called_can_be_read_back(name: str, other: str) -> None:
    registry = Registry()
    counter = registry.counter("crashes_total", "Crashes.", ("name", "other"))
    counter.add(name, other)
    [family] = registry.families()

    [found] = text_string_to_metric_families(render([family]))

    assert [one.labels for one in found.samples] == [one.labels for one in family.samples]
