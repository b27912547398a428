"""What a CNEInstance says of cores is what the chart is told, and what cannot be is said."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common.errors import CollectorError
from services.corectl import parser
from services.corectl.cneinstance import (
    _READ,
    NOT_COLLECTED,
    PLATFORMS,
    Converted,
    convert,
    run,
)
from services.corectl.cneinstance_file import GROUPS, SIZE_LIMIT, choose, read_documents
from services.corectl.settings import CorectlSettings
from tests.bundle import ROOT

PAGE = """\
apiVersion: k8s.f5.com/v1
kind: CNEInstance
metadata:
  name: cneinstance-sample
spec:
  coreCollection:
    enabled: true
  advanced:
    coremon:
      hostPath: true
      env:
      - name: "COREMOND_OVERRIDE_CORE_PATTERN"
        value: "true"
"""
"""The product page's, with spaces for its tabs, and switched on."""


def instance(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "k8s.f5.com/v1",
        "kind": "CNEInstance",
        "metadata": {"name": "sample"},
        "spec": {"coreCollection": {"enabled": True}, **spec},
    }


def coremon(**values: Any) -> Converted:
    return convert(instance(advanced={"coremon": values}))


def said(result: Converted) -> str:
    return "\n".join(result.notes)


def complaint(text: str) -> str:
    with pytest.raises(CollectorError) as caught:
        choose(read_documents(text.encode()))
    return str(caught.value)


def ran(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = run(CorectlSettings(), Namespace(file=str(path), name=None))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_product_page_s_own_comes_to_what_it_describes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "instance.yaml"
    path.write_text(PAGE)

    status, out, err = ran(path, capsys)

    assert (status, err) == (0, "")
    assert yaml.safe_load(out) == {
        "platformType": "generic",
        "coremon": {
            "hostPath": True,
            "env": [{"name": "COREMOND_OVERRIDE_CORE_PATTERN", "value": "true"}],
        },
    }


def test_it_is_found_among_others_and_in_a_list() -> None:
    among = f"kind: Namespace\n---\n---\n{PAGE}"
    listed = yaml.safe_dump({"kind": "List", "items": [{"kind": "Secret"}, yaml.safe_load(PAGE)]})

    assert choose(read_documents(among.encode())) == yaml.safe_load(PAGE)
    assert choose(read_documents(listed.encode())) == yaml.safe_load(PAGE)


def test_of_several_one_is_chosen_by_its_name() -> None:
    other = PAGE.replace("cneinstance-sample", "other")
    documents = read_documents(f"{PAGE}---\n{other}".encode())

    assert choose(documents, "other") == yaml.safe_load(other)
    with pytest.raises(CollectorError, match=r"there are 2 .* --name: cneinstance-sample, other"):
        choose(documents)
    with pytest.raises(CollectorError, match="no CNEInstance called third"):
        choose(documents, "third")


def test_the_other_group_of_the_kind_is_taken_too() -> None:
    assert choose([{**instance(), "apiVersion": "k8s.f5net.com/v1"}])["kind"] == "CNEInstance"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no CNEInstance"),
        ("kind: Pod", "there is no CNEInstance, but Pod"),
        ("kind: CNEInstance\napiVersion: v1", "apiVersion is v1, and not k8s.f5.com/v1"),
        ("kind: CNEInstance", "apiVersion is None"),
        ("spec:\n\tadvanced: 1", "not YAML: line 2, column 1: a tab; indent with spaces"),
        ("a: [", "not YAML: line 1"),
        ("[" * 5000, "nested too deeply"),
        ("a: 2020-99-99", "not YAML"),
        ("a: \x00", "not YAML"),
        ("a: 1\nb: 2\na: 3", "not YAML: line 3, column 1: 'a' stands here twice"),
        ("{[a]: 1, [a]: 1}", "not YAML"),
        ("!!python/object/apply:os.system [id]", "not YAML"),
    ],
)
def test_what_is_none_is_said_with_its_reason(text: str, message: str) -> None:
    assert message in complaint(text)


def test_what_is_no_text_is_said() -> None:
    with pytest.raises(CollectorError, match="not UTF-8"):
        read_documents(b"\xff\xfe\x00")


def test_too_much_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * (SIZE_LIMIT + 1))

    with pytest.raises(CollectorError, match="more than"):
        run(CorectlSettings(), Namespace(file=str(path), name=None))


@pytest.mark.parametrize("collection", [{}, {"enabled": False}, None])
def test_one_that_collects_no_cores_comes_to_nothing_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], collection: dict[str, Any] | None
) -> None:
    path = tmp_path / "instance.yaml"
    path.write_text(yaml.safe_dump(instance(coreCollection=collection)))

    status, out, err = ran(path, capsys)

    assert (status, out) == (NOT_COLLECTED, "")
    assert "spec.coreCollection.enabled is " in err
    assert "nothing is to be installed" in err


def test_a_mistake_counts_also_where_no_cores_are_collected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "instance.yaml"
    path.write_text(yaml.safe_dump(instance(coreCollection={}, platformType="mainframe")))

    status, _, err = ran(path, capsys)

    assert (status, len(err.splitlines())) == (1, 1)


@pytest.mark.parametrize("given", [*PLATFORMS, "OCP"])
@pytest.mark.parametrize("env", [[], [{"name": "COREMOND_OVERRIDE_CORE_PATTERN", "value": "true"}]])
def test_the_platform_that_it_says_is_the_charts(given: str, env: list[dict[str, str]]) -> None:
    result = convert(instance(platformType=given, advanced={"coremon": {"env": env}}))

    assert result.values["platformType"] == given.lower()
    assert "platformType" not in said(result)


def test_a_platform_that_it_does_not_say_is_asked_for() -> None:
    override = {"name": "COREMOND_OVERRIDE_CORE_PATTERN", "value": "true"}

    assert "set platformType to one of generic, other, ocp" in said(coremon())
    assert "if it is OpenShift, set platformType to ocp" in said(coremon(env=[override]))


def test_without_a_host_path_the_volume_is_what_it_needs() -> None:
    result = convert(instance(storageClassName="nfs"))

    assert result.values["coremon"]["hostPath"] is False
    assert result.values["persistence"] == {"storageClassName": "nfs"}
    assert "ReadWriteMany" in said(result)


def test_with_a_host_path_there_is_no_volume() -> None:
    result = convert(instance(storageClassName="nfs", advanced={"coremon": {"hostPath": True}}))

    assert "persistence" not in result.values
    assert "ReadWriteMany" not in said(result)
    assert "spec.storageClassName is not needed" in said(result)


def test_its_issuer_makes_the_certificates() -> None:
    result = convert(instance(certificate={"clusterIssuer": "internal-ca"}))

    assert result.values["grpc"] == {
        "tls": {"certManager": {"enabled": True, "issuerRef": {"name": "internal-ca"}}}
    }


def test_settings_are_texts_as_they_stood_there() -> None:
    env = [
        {"name": "COREMON_ROTATE", "value": True},
        {"name": "COREMON_MAX_USE", "value": 5000000000},
        {"name": "COREMON_DENY"},
        {"name": "TZ", "value": "UTC"},
    ]

    assert coremon(env=env).values["coremon"]["env"] == [
        {"name": "COREMON_ROTATE", "value": "true"},
        {"name": "COREMON_MAX_USE", "value": "5000000000"},
        {"name": "COREMON_DENY", "value": ""},
        {"name": "TZ", "value": "UTC"},
    ]


@pytest.mark.parametrize("name", ["COREMON_NO_SUCH", "COREMON_CORES_DIR", "QKVIEW_ADDRESS"])
def test_a_setting_without_a_counterpart_is_left_out_and_said(name: str) -> None:
    result = coremon(env=[{"name": name, "value": "x"}])

    assert result.values["coremon"]["env"] == []
    assert f"{name}=x has no counterpart" in said(result)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("COREMON_RETENTION_INTERVAL", "10 minutes", "expected a duration such as 0, 90s"),
        ("COREMON_SCAN_INTERVAL", "0", "expected more than 0"),
        ("COREMON_ROTATE", "perhaps", "expected true or false"),
        ("COREMON_CODEC", "bzip2", "expected one of gzip, zstd, lz4"),
        ("COREMOND_OVERRIDE_CORE_PATTERN", "", "expected true or false"),
        ("CRASHAGENT_KERNEL_SOCKET", "kernel.sock", "expected an absolute path"),
    ],
)
def test_a_value_that_no_program_would_take_is_said(name: str, value: str, problem: str) -> None:
    result = coremon(env=[{"name": name, "value": value}, {"name": "TZ", "value": "UTC"}])

    [found] = result.problems
    assert found.startswith(f"{name}={value!r}: {problem}")


def test_a_setting_that_stands_twice_is_said() -> None:
    twice = [{"name": "COREMON_ROTATE", "value": value} for value in ("true", "true")]

    assert coremon(env=twice).problems == [
        "spec.advanced.coremon.env[1]: COREMON_ROTATE stands there twice; leave one"
    ]


def test_the_pattern_is_not_set_by_a_value_that_the_chart_cannot_see() -> None:
    source = {"configMapKeyRef": {"name": "a", "key": "b"}}

    result = coremon(env=[{"name": "COREMOND_OVERRIDE_CORE_PATTERN", "valueFrom": source}])

    assert result.problems == [
        "COREMOND_OVERRIDE_CORE_PATTERN: expected a value, for the chart has to know it"
    ]


def test_a_value_from_elsewhere_has_no_counterpart_either_where_its_setting_has_none() -> None:
    result = coremon(env=[{"name": "QKVIEW_ADDRESS", "valueFrom": {}}])

    assert "extraEnv" not in result.values
    assert "QKVIEW_ADDRESS has no counterpart" in said(result)


def test_a_value_from_elsewhere_stays_one() -> None:
    source = {"secretKeyRef": {"name": "keys", "key": "a"}}

    result = coremon(env=[{"name": "KEY", "valueFrom": source}])

    assert result.values["extraEnv"] == [{"name": "KEY", "valueFrom": source}]


def test_parts_without_a_counterpart_are_said() -> None:
    result = convert(
        instance(
            coreCollection={"enabled": True, "more": 1},
            advanced={"coremon": {"image": "x"}},
            registry={"uri": "x"},
            product={"type": "BNK"},
            certificate={"secret": "x"},
        )
    )

    assert "spec.coreCollection.more has no counterpart." in result.notes
    assert "spec.advanced.coremon.image has no counterpart." in result.notes
    assert "spec.registry" in said(result)
    assert "Passed over: spec.product, spec.certificate.secret." in result.notes


def test_of_very_many_parts_only_some_are_named() -> None:
    result = convert(instance(**{f"part{number}": 1 for number in range(1000)}))

    assert "spec.part19, and 980 more." in said(result)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"advanced": []}, "spec.advanced: expected a map, got a list"),
        ({"advanced": {"coremon": "x"}}, "spec.advanced.coremon: expected a map, got 'x'"),
        ({"coreCollection": {"enabled": "yes"}}, "enabled: expected true or false, got 'yes'"),
        ({"advanced": {"coremon": {"hostPath": 1}}}, "hostPath: expected true or false, got 1"),
        ({"advanced": {"coremon": {"env": {}}}}, "env: expected a list, got a map"),
        ({"advanced": {"coremon": {"env": "x"}}}, "env: expected a list, got 'x'"),
        ({"advanced": {"coremon": {"env": ["x"]}}}, "env[0]: expected a name and a value"),
        (
            {"advanced": {"coremon": {"env": [{"name": "A", "value": [1]}]}}},
            "env[0].value: expected text, got a list",
        ),
        (
            {"advanced": {"coremon": {"env": [{"name": "A B", "value": "x"}]}}},
            "env[0].name: expected a variable's name, got 'A B'",
        ),
        (
            {"advanced": {"coremon": {"env": [{"name": "A", "value": "x", "valueFrom": {}}]}}},
            "env[0]: A has a value and a valueFrom",
        ),
        ({"platformType": 4}, "spec.platformType: expected text, got 4"),
        ({"platformType": "x"}, "spec.platformType: expected one of generic, other, ocp"),
        ({"certificate": {"clusterIssuer": 1}}, "spec.certificate.clusterIssuer: expected text"),
    ],
)
def test_what_is_of_another_kind_is_said_with_its_place(spec: dict[str, Any], problem: str) -> None:
    [found] = convert(instance(**spec)).problems

    assert problem in found


def test_every_mistake_is_said_and_nothing_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "instance.yaml"
    path.write_text(yaml.safe_dump(instance(advanced={"coremon": {"hostPath": 1, "env": "x"}})))

    status, out, err = ran(path, capsys)

    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 2


HOSTILE = "\x1b[2J\nplatformType: socket"


@pytest.mark.parametrize(
    ("name", "expected"), [("A", 0), (HOSTILE, 1), ("COREMON_CODEC", 1), ("COREMON_X", 0)]
)
def test_nothing_hostile_reaches_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, expected: int
) -> None:
    path = tmp_path / "instance.yaml"
    env = [{"name": name, "value": HOSTILE}]
    document = instance(**{HOSTILE: 1}, advanced={"coremon": {HOSTILE: 1, "env": env}})
    document["metadata"]["name"] = HOSTILE
    path.write_text(yaml.safe_dump(document))

    status, out, err = ran(path, capsys)

    assert status == expected
    assert "\x1b" not in out + err
    assert expected or "platformType" not in yaml.safe_load(out)


def test_the_help_names_every_field_that_is_read_and_an_example_that_is_one() -> None:
    help_text = parser.CNEINSTANCE_HELP
    example = help_text[help_text.index("  apiVersion:") : help_text.index("What has no")]

    assert all(f"{group}/v1" in help_text for group in GROUPS)
    assert all(platform in help_text for platform in PLATFORMS)
    assert convert(choose(read_documents(example.encode()))).values == {
        "platformType": "generic",
        "coremon": {
            "hostPath": True,
            "env": [{"name": "COREMOND_OVERRIDE_CORE_PATTERN", "value": "true"}],
        },
    }


def test_the_readme_has_every_field_that_is_read_and_an_example_that_is_one() -> None:
    readme = (ROOT / "README.md").read_text()
    example = readme[readme.index("apiVersion: k8s.f5.com/v1") :].partition("```")[0]

    assert all(f"{group}/v1" in readme for group in GROUPS)
    for where, names in _READ.items():
        for name in names - {"coreCollection", "advanced", "certificate", "coremon", "registry"}:
            assert f"| `{where.removeprefix('spec.')}{name}` |" in readme
            assert f"  {where}{name} " in parser.CNEINSTANCE_HELP
    assert convert(choose(read_documents(example.encode()))).values == {
        "platformType": "ocp",
        "coremon": {
            "hostPath": True,
            "env": [
                {"name": "COREMOND_OVERRIDE_CORE_PATTERN", "value": "true"},
                {"name": "COREMON_CORES_MAX_FILES", "value": "5"},
            ],
        },
    }


_SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_SCALARS, inner, max_size=3),
)


@given(collection=_ANYTHING, advanced=_ANYTHING, inner=_ANYTHING, env=_ANYTHING)
def test_nothing_but_values_and_problems_comes_of_anything(
    collection: Any, advanced: Any, inner: Any, env: Any
) -> None:
    for spec in (
        {"coreCollection": collection, "advanced": advanced},
        {"advanced": {"coremon": inner}},
        {"advanced": {"coremon": {"env": env}}, "certificate": inner},
        {"advanced": {"coremon": {"env": [env, {"name": env, "value": inner}]}}},
    ):
        result = convert(instance(**spec))

        assert result.problems or isinstance(result.values["coremon"]["env"], list)
        yaml.safe_dump(result.values)
