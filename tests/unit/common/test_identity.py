import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.identity import CLAIMS, Claim, Identifier, Whose, read_claim
from common.item import Crash
from common.kubelet import read_pod_directory
from common.pod import Container, Placed, Pod
from tests.unit.factories import CRASHED_AT, hostile_texts, without_deadline

NODE = "node-1"
SECOND = 10**9
ID, OTHER_ID = "1" * 64, "2" * 64
UID, OTHER_UID, STRANGE_UID = (str(UUID(int=number)) for number in (1, 2, 99))


class Known:
    """Knows *pods*; *awaited*: it is to be told of more."""

    def __init__(self, *pods: Pod, awaited: bool = False) -> None:
        self.pods = pods
        self.awaited = awaited

    def by_container(self, container_id: str) -> Placed | None:
        placed = (
            Placed(p, c.name) for p in self.pods for c in p.containers if container_id in c.ids
        )
        return next(placed, None)

    def by_uid(self, uid: str) -> Pod | None:
        return next((pod for pod in self.pods if pod.uid == uid), None)

    def by_hostname(self, hostname: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.hostname == hostname]

    def by_name(self, name: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.name == name]

    def there(self) -> list[Pod]:
        return [pod for pod in self.pods if pod.until is None]

    def is_empty(self) -> bool:
        return not self.pods

    def is_awaited(self) -> bool:
        return self.awaited


def pod(name: str = "web-0", uid: str = UID, *containers: Container | str, **facts: Any) -> Pod:
    """Make a pod; a container may be given by its name."""
    made = tuple(
        Container(name=c, kind="container") if isinstance(c, str) else c
        for c in containers or ("app",)
    )
    ordinary = {"namespace": "shop", "hostname": name, "containers": made}
    return Pod(**{"name": name, "uid": uid, **ordinary, **facts})


def identifier(*api: Pod, kubelet: Sequence[Pod] = ()) -> Identifier:
    return Identifier(NODE, api=Known(*api), kubelet=Known(*kubelet), own="f5-coremond-x2x2x")


def whose(found_by: Identifier, claim: Claim | None = None, **facts: Any) -> Whose:
    directory = facts.pop("directory", None)
    crash = Crash(**{"crashed_at": CRASHED_AT, "comm": "crash", **facts})
    return found_by.whose(crash, claim=lambda: claim or Claim(), directory=directory)


def who(found: Whose) -> tuple[str, str, str]:
    return found.namespace, found.pod, found.container


def how(found: Whose) -> tuple[str, str]:
    return found.identity.by, found.identity.container_by


def cgroup(uid: str = UID, container_id: str = "") -> str:
    return f"/kubepods/burstable/pod{uid}" + (f"/{container_id}" if container_id else "")


# The kernel's word.


def test_the_container_of_the_cgroup_goes_before_all_that_is_said() -> None:
    own = pod("web-0", UID, Container(name="app", ids=(ID,)), "sidecar")
    other = pod("bank-0", OTHER_UID, namespace="bank")
    lie = Claim(pod="bank-0", uid=OTHER_UID, container="sidecar", hostname="bank-0")

    found = whose(
        identifier(own, other), lie, cgroup=cgroup(UID, ID), hostname="bank-0", comm="sidecar"
    )

    assert who(found) == ("shop", "web-0", "app")
    assert how(found) == ("container-id", "container-id")


def test_a_pod_whose_container_is_unknown_is_found_by_its_uid_and_believed_in_nothing() -> None:
    found = whose(
        identifier(pod("web-0", UID, "app", "sidecar")),
        Claim(container="sidecar"),
        cgroup=cgroup(UID, OTHER_ID),
        hostname="bank-0",
    )

    assert (found.pod, how(found)) == ("web-0", ("pod-uid", "guess"))


def test_the_kubelet_is_asked_where_the_api_does_not_know_and_the_api_adds_the_rest() -> None:
    logs = pod("web-0", UID, Container(name="app", ids=(ID,)))
    rich = replace(logs, containers=(Container(name="app", image="i:1"),), qos="Burstable")

    found = whose(identifier(rich, kubelet=[logs]), cgroup=cgroup(UID, ID))

    assert how(found)[0] == "container-id"
    assert found.found == rich


def test_a_container_whose_pods_uid_nobody_knew_has_that_of_its_cgroup() -> None:
    logs = pod("web-0", "", Container(name="app", ids=(ID,)))

    found = whose(identifier(kubelet=[logs]), cgroup=cgroup(UID, ID))

    assert (who(found), how(found)[0]) == (("shop", "web-0", "app"), "container-id")
    assert found.found
    assert found.found.uid == UID


def test_a_container_that_is_called_as_another_pods_is_its_own_pods() -> None:
    own, other = pod(), pod("bank-0", OTHER_UID, Container(name="db", ids=(OTHER_ID,)))

    found = whose(identifier(own, other), cgroup=cgroup(UID, OTHER_ID))

    assert (found.pod, how(found)[0]) == ("web-0", "pod-uid")


def test_what_a_user_calls_his_cgroups_makes_him_no_pod() -> None:
    known = identifier(pod("web-0", UID, Container(name="app", ids=(ID,))))
    for forged in (f"kubepods/pod{UID}/{ID}", ID, f"cri-containerd-{ID}.scope"):
        found = whose(known, cgroup=f"/user.slice/user-1.slice/{forged}", hostname="web-0")

        assert (found.namespace, found.pod, found.found) == ("", NODE, None)


@pytest.mark.parametrize(
    "nobodys",
    [f"/docker/{OTHER_ID}", cgroup(STRANGE_UID, OTHER_ID), cgroup(STRANGE_UID), f"/../{OTHER_ID}"],
)
@pytest.mark.parametrize("claim", [Claim(), Claim(pod="web-0", namespace="shop", uid=UID)])
def test_a_container_that_nobody_knows_is_no_pods_by_its_word(nobodys: str, claim: Claim) -> None:
    found = whose(identifier(pod()), claim, cgroup=nobodys, hostname="web-0")

    assert found.identity.by == "guess"
    assert STRANGE_UID not in nobodys or found.found is None


def test_a_container_alone_is_enough_where_no_pod_is_in_the_path() -> None:
    known = identifier(pod("web-0", UID, Container(name="app", ids=(ID,))))

    assert how(whose(known, cgroup=f"/../cri-containerd-{ID}.scope"))[0] == "container-id"


def test_a_process_in_no_pod_is_the_nodes() -> None:
    found = whose(identifier(pod(NODE)), cgroup="/system.slice/sshd.service", hostname="web-0")

    assert (found.namespace, found.pod, found.found) == ("", NODE, None)


# The directory that a core was left in.


@pytest.mark.parametrize("name", [f"shop_web-0_{UID}_sidecar", f"shop_web-0_{UID}"])
@pytest.mark.parametrize("hostname", ["", "web-0", "nobody-0", "f5-coremond-x2x2x"])
def test_a_directory_tells_the_pod_whatever_the_core_says(name: str, hostname: str) -> None:
    own, other = pod("web-0", UID, "app", "sidecar"), pod("bank-0", OTHER_UID)

    found = whose(
        identifier(other, own, pod("f5-coremond-x2x2x", STRANGE_UID)),
        Claim(pod="bank-0", uid=OTHER_UID, container="app"),
        hostname=hostname,
        directory=read_pod_directory(name),
    )

    is_told = name.endswith("sidecar")
    assert (found.pod, how(found)) == (
        "web-0",
        ("pod-uid", "directory" if is_told else "guess"),
    )
    assert not is_told or found.container == "sidecar"


def test_a_directory_is_taken_at_its_word_where_nothing_is_known_of_any_pod() -> None:
    directory = read_pod_directory(f"shop_web-0_{UID}_sidecar")
    crash = Crash(hostname="bank-0")

    found = identifier().whose(crash, directory=directory)
    awaited = Identifier(NODE, api=Known(awaited=True)).whose(crash, directory=directory)

    assert (who(found), how(found)) == (("shop", "web-0", "sidecar"), ("pod-uid", "directory"))
    assert (who(awaited), how(awaited)[0]) == (who(found), "guess")


@pytest.mark.parametrize(
    ("name", "hostname"),
    [
        (f"bank_bank-0_{OTHER_UID}_app", "web-0"),  # the pod has asked to be called a victim's
        (f"bank_bank-0_{OTHER_UID}", "web-0.peers.shop.svc.cluster.local"),
        (f"bank_bank-0_{UID}", "web-0"),
        (f"shop_bank-0_{OTHER_UID}", ""),
        (f"bank_bank-0_{STRANGE_UID}", ""),
    ],
)
def test_a_directory_that_does_not_fit_what_is_known_is_a_guess(name: str, hostname: str) -> None:
    api = [pod(), pod("bank-0", OTHER_UID, namespace="bank")]

    for known in (identifier(*api), identifier(kubelet=api)):
        found = whose(known, hostname=hostname, directory=read_pod_directory(name))

        assert how(found) == ("guess", "guess")


def test_a_directory_of_a_pod_with_a_host_name_of_its_own_is_not_left_in_by_the_nodes() -> None:
    directory = read_pod_directory(f"shop_web-0_{UID}")

    assert how(whose(identifier(pod()), hostname=NODE, directory=directory)) == ("guess", "guess")


def test_a_directory_of_a_container_that_the_pod_does_not_have_tells_none() -> None:
    directory = read_pod_directory(f"shop_web-0_{UID}_other")

    assert how(whose(identifier(pod()), directory=directory)) == ("pod-uid", "guess")


def test_a_pod_on_the_nodes_network_has_its_directory_beside_one_that_is_called_as_the_node() -> (
    None
):
    known = identifier(pod("net-0", UID, hostname=""), pod(NODE, OTHER_UID))
    directory = read_pod_directory(f"shop_net-0_{UID}")

    assert how(whose(known, hostname=NODE, directory=directory)) == ("pod-uid", "only-one")


def test_a_directory_does_not_count_against_the_kernels_word() -> None:
    directory = read_pod_directory(f"bank_bank-0_{OTHER_UID}")

    found = whose(identifier(pod("bank-0", OTHER_UID)), cgroup=cgroup(UID), directory=directory)

    assert (found.found, found.identity.by) == (None, "guess")


# The host name.


def test_a_host_name_that_one_pod_has_is_that_pods() -> None:
    found = whose(identifier(pod(), pod("bank-0", OTHER_UID)), hostname="web-0")

    assert (who(found), how(found)) == (("shop", "web-0", "app"), ("hostname", "only-one"))


def test_a_host_name_that_two_pods_have_is_a_guess() -> None:
    twin = pod("web-0", OTHER_UID, namespace="twin")
    named = pod("other", STRANGE_UID, hostname="web-0")

    assert how(whose(identifier(pod(), twin), hostname="web-0"))[0] == "guess"
    assert how(whose(identifier(pod(), named), hostname="web-0"))[0] == "guess"


def test_a_pod_that_asked_for_another_host_name_is_not_found_by_its_own() -> None:
    asked = pod("web-0", UID, hostname="front")
    by_logs = pod("web-0", UID)

    known = identifier(asked, kubelet=[by_logs])

    assert how(whose(known, hostname="front")) == ("hostname", "only-one")
    assert whose(known, hostname="web-0").found is None


def test_pods_whose_names_are_cut_alike_are_a_guess() -> None:
    cut = "x" * 63
    known = identifier(pod(f"{cut}-a", hostname=cut), pod(f"{cut}-b", OTHER_UID, hostname=cut))

    assert how(whose(known, hostname=cut))[0] == "guess"


def test_a_host_name_with_its_domain_is_that_of_the_namespace_in_it() -> None:
    known = identifier(pod(), pod("web-0", OTHER_UID, namespace="twin"))

    found = whose(known, hostname="web-0.peers.twin.svc.cluster.local")

    assert (found.namespace, how(found)[0]) == ("twin", "hostname")


@pytest.mark.parametrize(
    "hostname", ["web-0.example.com", "web-0.peers.bank.svc.cluster.local", "web-0.", "web-0.shop"]
)
def test_a_host_name_with_a_domain_that_no_pod_has_is_a_guess(hostname: str) -> None:
    assert how(whose(identifier(pod()), hostname=hostname))[0] == "guess"


def test_a_dot_in_a_pods_name_is_no_domain() -> None:
    known = identifier(pod(), pod("web-0.a", OTHER_UID))

    assert (whose(known, hostname="web-0.a").pod, whose(known, hostname="web-0").pod) == (
        "web-0.a",
        "web-0",
    )


@pytest.mark.parametrize("hostname", [NODE, f"{NODE}.example.com"])
def test_a_pod_that_is_called_as_the_node_is_not_the_node(hostname: str) -> None:
    assert how(whose(identifier(pod(NODE)), hostname=hostname))[0] == "guess"
    assert how(whose(identifier(kubelet=[pod(NODE)]), hostname=hostname))[0] == "guess"


def test_our_own_host_name_is_said_for_those_whose_own_nobody_saw() -> None:
    own = pod("f5-coremond-x2x2x", OTHER_UID)
    known, claim = identifier(pod(), own), Claim(pod="web-0", namespace="shop")

    unseen = whose(known, hostname="f5-coremond-x2x2x")
    claimed = whose(known, claim, hostname="f5-coremond-x2x2x")

    assert (unseen.found, unseen.pod, how(unseen)[0]) == (None, "f5-coremond-x2x2x", "guess")
    assert (claimed.pod, how(claimed)[0]) == ("web-0", "core-environ")


def test_our_own_host_name_is_the_systems_if_none_is_told() -> None:
    own = os.uname().nodename
    known = Identifier("another-node", api=Known(pod(own)))

    assert whose(known, hostname=own).found is None


# Pods of one name, one after the other.

EARLIER = pod(
    "web-0",
    UID,
    since=CRASHED_AT - 900 * SECOND,
    until=CRASHED_AT,
    containers=(Container(name="a"),),
)
LATER = pod("web-0", OTHER_UID, since=CRASHED_AT + 2 * SECOND)


@pytest.mark.parametrize(
    ("seconds", "uid"),
    [(-60, UID), (-4, UID), (-1, UID), (0, UID), (3, OTHER_UID), (60, OTHER_UID)],
)
@pytest.mark.parametrize("claim", [Claim(), Claim(pod="web-0")])
def test_a_crash_is_that_pods_of_a_name_which_was_there(
    seconds: int, uid: str, claim: Claim
) -> None:
    moment = CRASHED_AT + seconds * SECOND
    for known in (identifier(EARLIER, LATER), identifier(LATER, kubelet=[EARLIER])):
        found = whose(known, claim, hostname="web-0", crashed_at=moment)

        assert found.found
        assert found.found.uid == uid


@pytest.mark.parametrize(("seconds", "uid"), [(-60, UID), (-4, UID), (2, OTHER_UID)])
def test_the_kubelet_keeps_logs_of_a_pod_beside_those_of_the_next(seconds: int, uid: str) -> None:
    lingering = replace(EARLIER, until=None)
    moment = CRASHED_AT + seconds * SECOND

    for kubelet in ([lingering, LATER], [LATER, lingering]):
        found = whose(identifier(kubelet=kubelet), hostname="web-0", crashed_at=moment)

        assert found.found
        assert found.found.uid == uid


def test_a_pod_that_was_long_gone_or_came_later_is_not_told() -> None:
    for seconds in (-3600, 3600):
        moment = CRASHED_AT + seconds * SECOND
        known = identifier(EARLIER if seconds > 0 else LATER)

        assert whose(known, hostname="web-0", crashed_at=moment).identity.by == "guess"


# Claims.


def test_a_claim_that_the_host_name_agrees_with_counts() -> None:
    known = identifier(pod(), pod("web-0", OTHER_UID, namespace="twin"))

    found = whose(known, Claim(pod="web-0", namespace="twin"), hostname="web-0")

    assert (found.namespace, how(found)[0]) == ("twin", "core-environ")


@pytest.mark.parametrize(
    "claim",
    [
        Claim(pod="bank-0"),
        Claim(pod="bank-0", uid=OTHER_UID),
        Claim(uid=OTHER_UID),
        Claim(pod="nobody-0"),
        Claim(pod="web-0", namespace="bank"),
        Claim(pod="web-0", uid=OTHER_UID),
        Claim(namespace="bank"),
        Claim(uid=STRANGE_UID),
        Claim(pod="web-0", uid=UID, namespace="bank"),
    ],
)
def test_a_claim_that_does_not_fit_the_host_name_is_a_guess(claim: Claim) -> None:
    known = identifier(pod(), pod("bank-0", OTHER_UID))

    assert whose(known, claim, hostname="web-0").identity.by == "guess"


def test_a_claim_that_the_host_name_gainsays_in_part_is_a_guess_also_without_the_api() -> None:
    known = identifier(kubelet=[pod(), pod("bank-0", OTHER_UID)])

    for hostname in ("web-0", "web-0.example.com", "web-0.peers.shop.svc.cluster.local"):
        assert whose(known, Claim(pod="bank-0"), hostname=hostname).identity.by == "guess"


def test_a_pod_on_the_nodes_network_is_found_by_its_claim_alone() -> None:
    known = identifier(pod("net-0", UID, hostname=""), pod())

    assert how(whose(known, Claim(pod="net-0"), hostname=NODE))[0] == "core-environ"
    assert how(whose(known, Claim(pod="web-0", namespace="twin"), hostname=NODE))[0] == "guess"
    assert how(whose(known, hostname=NODE))[0] == "guess"


@pytest.mark.parametrize("hostname", [NODE, f"{NODE}.example.com"])
def test_who_is_called_as_the_node_may_be_a_pod_that_asked_for_it(hostname: str) -> None:
    known = identifier(pod("net-0", OTHER_UID, hostname=""), pod("evil", hostname=NODE))

    forged = whose(known, Claim(pod="net-0", uid=OTHER_UID), hostname=hostname)
    own = whose(known, Claim(pod="evil"), hostname=hostname)

    assert how(forged) == ("guess", "guess")
    assert (own.pod, how(own)[0]) == ("evil", "core-environ")


def test_a_pod_that_is_called_as_the_node_takes_no_claim_of_its_namesake_on_its_network() -> None:
    named = pod(NODE, UID)
    known = identifier(named, pod(NODE, OTHER_UID, namespace="twin", hostname=""))

    assert how(whose(known, Claim(pod=NODE), hostname=NODE)) == ("guess", "guess")


def test_where_nothing_is_known_of_any_pod_the_process_is_taken_at_its_word() -> None:
    claim = Claim(pod="web-0", namespace="shop", container="app")

    found = whose(identifier(), claim, hostname="anything")

    assert (who(found), how(found)) == (("shop", "web-0", "app"), ("core-environ", "core-environ"))


def test_claims_are_read_only_where_nothing_is_surer() -> None:
    def refuse() -> Claim:
        raise AssertionError("the core was read")

    known = identifier(pod("web-0", UID, Container(name="app", ids=(ID,))))
    for crash in (Crash(cgroup=cgroup(UID, ID)), Crash(cgroup=cgroup()), Crash(cgroup="/x")):
        known.whose(crash, claim=refuse)


def test_what_no_kubernetes_could_have_said_is_no_claim() -> None:
    environ = [
        ("POD_NAME", "../../etc"),
        ("MY_POD_NAME", "web-0"),
        ("K8S_POD_NAME", "second"),
        ("POD_NAMESPACE", "Shop"),
        ("POD_UID", "a" * 254),
        ("PATH", "web-0"),
    ]

    assert read_claim(environ) == Claim(pod="web-0")


@without_deadline
@given(st.lists(st.tuples(st.sampled_from([*CLAIMS]), hostile_texts)))
def test_a_claim_has_names_of_kubernetes_only(environ: list[tuple[str, str]]) -> None:
    claim = read_claim(environ)

    for said in (claim.pod, claim.namespace, claim.uid, claim.container, claim.hostname):
        assert said.isascii()
        assert set(said).isdisjoint('/_\n "\0')


# The container.


APP = Container(name="app", kind="container")
INIT = Container(name="setup", kind="init")
DEBUG = Container(name="debugger", kind="ephemeral")


@pytest.mark.parametrize(
    ("containers", "facts", "expected"),
    [
        (("app",), {}, ("app", "only-one")),
        (("app", replace(INIT, until=0)), {}, ("app", "only-one")),
        (("app", replace(INIT, until=CRASHED_AT - 1)), {}, ("app", "only-one")),
        (("app", replace(INIT, until=CRASHED_AT)), {}, ("app", "guess")),
        ((replace(APP, since=CRASHED_AT + 2 * 10**9), INIT), {}, ("setup", "only-one")),
        ((replace(APP, since=CRASHED_AT + 9 * 10**8), INIT), {}, ("app", "guess")),
        ((replace(APP, since=CRASHED_AT + 2 * 10**9),), {}, ("app", "only-one")),
        ((replace(APP, since=2**62), replace(INIT, until=1)), {}, ("app", "guess")),
        (("crash", "app"), {}, ("crash", "process")),
        (("app", Container(name="x", command="/bin/crash")), {}, ("x", "process")),
        (("app", Container(name="x", image="r.io:5000/a/crash:1@sha256:0")), {}, ("x", "process")),
        (("app", INIT), {"comm": "setup"}, ("setup", "process")),
        ((INIT, "app", "other"), {}, ("app", "guess")),
        ((DEBUG, "app"), {}, ("app", "guess")),
        (("crash", Container(name="x", command="crash")), {}, ("crash", "guess")),
        (("a-very-long-name-of-it", "b"), {"comm": "a-very-long-nam"}, ("a-very-long-name-of-it",)),
        (("app", "b"), {"comm": ""}, ("app", "guess")),
        (("app", "b"), {"comm": "x", "exe": "/usr/bin/b"}, ("b", "process")),
    ],
)
def test_the_container_is_told_as_far_as_it_can_be(
    containers: tuple[Container | str, ...], facts: dict[str, Any], expected: tuple[str, ...]
) -> None:
    found = whose(identifier(pod("web-0", UID, *containers)), cgroup=cgroup(), **facts)

    assert (found.container, found.identity.container_by)[: len(expected)] == expected


def test_a_container_that_is_claimed_counts_if_the_pod_has_it() -> None:
    known = identifier(pod("web-0", UID, "app", "sidecar"))

    has = whose(known, Claim(container="sidecar"), hostname="web-0")
    has_not = whose(known, Claim(container="other"), hostname="web-0")

    assert (has.container, how(has)[1]) == ("sidecar", "core-environ")
    assert (has_not.container, how(has_not)[1]) == ("app", "guess")


# Everything at once: whoever tells the truth is told right, or it is a guess.

NAMES = ["web-0", "web-1", "front", NODE]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Pod], list[Pod]]:
    """Give some pods as the API has them, and as the kubelet has them."""
    keys = st.tuples(st.sampled_from(["shop", "twin"]), st.sampled_from(NAMES))
    api = [
        pod(
            name,
            str(UUID(int=number)),
            namespace=namespace,
            hostname=draw(st.sampled_from([name, name, "", *NAMES])),
        )
        for number, (namespace, name) in enumerate(draw(st.lists(keys, unique=True, max_size=5)))
    ]
    return api, [replace(each, hostname=each.name) for each in api]


@without_deadline
@given(worlds(), st.data())
def test_a_process_that_does_not_lie_is_told_its_own_pod_or_it_is_a_guess(
    world: tuple[list[Pod], list[Pod]], data: st.DataObject
) -> None:
    api, kubelet = world
    own = data.draw(st.sampled_from([*api, None]))
    claim = Claim()
    if own:
        said = {"pod": own.name, "namespace": own.namespace, "uid": own.uid}
        claim = Claim(**{key: said[key] for key in data.draw(st.sets(st.sampled_from([*said])))})
    hostname = (own.hostname if own else "") or NODE

    found = whose(identifier(*api, kubelet=kubelet), claim, hostname=hostname)

    if found.identity.by != "guess":
        assert own if api else not own
        assert (found.found.uid if found.found else None) == (own.uid if own else None)


@without_deadline
@given(worlds(), st.sampled_from([*NAMES, "web-0.a.shop.svc.c"]), st.sampled_from([*NAMES, ""]))
def test_a_process_of_the_node_is_no_pods_whatever_it_says(
    world: tuple[list[Pod], list[Pod]], hostname: str, claimed: str
) -> None:
    api, kubelet = world
    assume(api)
    for path in ("/system.slice/x.service", f"/docker/{ID}", cgroup(STRANGE_UID, ID)):
        for known in (identifier(*api, kubelet=kubelet), identifier(kubelet=kubelet)):
            found = whose(known, Claim(pod=claimed), hostname=hostname, cgroup=path)

            assert found.identity.by == "guess" or found.found is None


@without_deadline
@given(st.fixed_dictionaries(dict.fromkeys(("hostname", "cgroup", "comm", "exe"), hostile_texts)))
@pytest.mark.parametrize("make", [lambda: identifier(), lambda: identifier(pod())])
def test_whatever_a_process_says_gives_a_pod_and_a_container(
    make: Callable[[], Identifier], facts: dict[str, Any]
) -> None:
    found = make().whose(Crash(**facts))

    assert found.pod
    assert found.container
    assert found.workload


def test_a_host_name_is_a_guess_until_the_api_has_told_who_asked_for_it() -> None:
    crash = Crash(hostname="web-0")
    before = Identifier(NODE, api=Known(awaited=True), kubelet=Known(pod("web-0")), own="x")
    after = Identifier(NODE, api=Known(pod("web-0")), kubelet=Known(pod("web-0")))
    nothing = Identifier(NODE, api=Known(awaited=True), own="x")

    assert (before.whose(crash).pod, before.whose(crash).identity.by) == ("web-0", "guess")
    assert after.whose(crash).identity.by == "hostname"
    assert nothing.whose(crash).identity.by == "guess"


def test_a_host_name_is_a_guess_while_a_pod_is_there_that_the_api_has_not_told_of() -> None:
    new = pod("evil", OTHER_UID, since=CRASHED_AT - 10**10)
    gone = pod("old", STRANGE_UID, until=CRASHED_AT)
    left = pod("left", STRANGE_UID), pod("over", OTHER_UID, since=CRASHED_AT - 10**12)

    stale = whose(identifier(pod(), kubelet=[pod(), new]), hostname="web-0")
    told = whose(identifier(pod(), kubelet=[pod(), gone]), hostname="web-0")
    unasked = whose(identifier(kubelet=[pod(), new]), hostname="web-0")
    beside = whose(identifier(pod(), kubelet=[pod(), *left]), hostname="web-0")

    assert (who(stale), how(stale)) == (("shop", "web-0", "app"), ("guess", "guess"))
    assert (how(told)[0], how(unasked)[0], how(beside)[0]) == ("hostname",) * 3


def test_of_two_pods_of_one_name_the_newer_is_sure_once_it_was_there() -> None:
    moment = CRASHED_AT - 10**9
    old = pod("web-0", UID, made_by=moment - 10**9)
    new = pod("web-0", OTHER_UID, since=moment, made_by=moment + 10**8)
    known = identifier(kubelet=[old, new])

    after = whose(known, hostname="web-0")
    between = whose(known, hostname="web-0", crashed_at=moment + 10**7)

    assert after.found
    assert (after.found.uid, how(after)) == (OTHER_UID, ("hostname", "only-one"))
    assert how(between) == ("guess", "guess")


def test_a_host_name_is_a_guess_while_nobody_tells_of_changes() -> None:
    known = Identifier(NODE, api=Known(pod(), awaited=True), kubelet=Known(pod()), own="x")

    found = whose(known, hostname="web-0")

    assert (who(found), how(found)) == (("shop", "web-0", "app"), ("guess", "guess"))


# Static pods, whose uid is in an annotation that anybody can write.

STATIC = "0f" * 16
REAL = pod("etcd-node-1", STATIC, Container(name="etcd", ids=(ID,)), namespace="kube-system")
FORGED = pod("evil", STATIC, Container(name="app", ids=(OTHER_ID,)), namespace="tenant")


class Mirrors(Known):
    """Knows mirrors of static pods, of which several may have one uid."""

    def by_uid(self, uid: str) -> Pod | None:
        found = [pod for pod in self.pods if pod.uid == uid]
        return found[0] if len(found) == 1 else None


@pytest.mark.parametrize("mirrors", [(FORGED,), (FORGED, REAL), (REAL, FORGED), (REAL,)])
@pytest.mark.parametrize(
    "facts",
    [
        {"cgroup": cgroup(STATIC, ID)},
        {"cgroup": cgroup(STATIC)},
        {"cgroup": cgroup(STATIC, "3" * 64)},
        {"directory": read_pod_directory(f"kube-system_etcd-node-1_{STATIC}")},
        {"hostname": "etcd-node-1"},
    ],
)
def test_who_claims_the_uid_of_a_static_pod_does_not_get_its_crashes(
    mirrors: tuple[Pod, ...], facts: dict[str, Any]
) -> None:
    rich = [replace(each, qos="Burstable") for each in mirrors]

    found = whose(Identifier(NODE, api=Mirrors(*rich), kubelet=Known(REAL)), **facts)

    assert who(found) == ("kube-system", "etcd-node-1", "etcd")
    assert found.found
    assert found.found.qos == ("Burstable" if REAL in mirrors else "")
    assert how(found)[0] != "guess" or ("hostname" in facts and REAL not in mirrors)


def test_of_two_that_claim_to_be_one_static_pod_none_is_told_without_the_kubelet() -> None:
    known = Identifier(NODE, api=Mirrors(REAL, FORGED))

    assert whose(known, cgroup=cgroup(STATIC)).identity.by == "guess"


# A container that nobody has told of.


@pytest.mark.parametrize(
    ("comm", "expected"), [("bash", ("app", "guess")), ("app", ("app", "process"))]
)
def test_an_id_that_none_of_the_pods_containers_has_is_not_the_only_one(
    comm: str, expected: tuple[str, str]
) -> None:
    known = pod("web-0", UID, Container(name="app", ids=(ID,)))

    for found_by in (identifier(known), identifier(kubelet=[known])):
        found = whose(found_by, cgroup=cgroup(UID, OTHER_ID), comm=comm)

        assert (found.pod, found.identity.by) == ("web-0", "pod-uid")
        assert (found.container, how(found)[1]) == expected


def test_an_id_counts_against_none_where_no_ids_are_told() -> None:
    found = whose(identifier(pod()), cgroup=cgroup(UID, OTHER_ID))

    assert how(found) == ("pod-uid", "only-one")


def test_the_ids_that_the_kubelet_alone_knows_count_too() -> None:
    seen = pod("web-0", UID, Container(name="app", ids=(ID,)))

    found = whose(identifier(pod(), kubelet=[seen]), cgroup=cgroup(UID, OTHER_ID))

    assert how(found) == ("pod-uid", "guess")


@pytest.mark.parametrize("facts", [{"cgroup": cgroup(UID)}, {"hostname": "web-0"}])
def test_a_container_that_the_kubelet_alone_knows_may_be_the_one(facts: dict[str, Any]) -> None:
    known = identifier(pod(), kubelet=[pod("web-0", UID, "app", "debugger")])

    assert how(whose(known, **facts))[1] == "guess"
    named = whose(known, comm="debugger", **facts)
    assert (named.container, how(named)[1]) == ("debugger", "process")


def test_a_pod_that_went_half_seen_has_no_only_container() -> None:
    whole = pod("web-0", UID, seen=((CRASHED_AT - SECOND, CRASHED_AT + SECOND),))
    half = replace(whole, seen=((CRASHED_AT + SECOND, CRASHED_AT + 2 * SECOND),))

    for cgroup_path, hostname in ((cgroup(), ""), ("", "web-0")):
        facts: dict[str, Any] = {"cgroup": cgroup_path, "hostname": hostname}
        assert how(whose(identifier(kubelet=[whole]), **facts))[1] == "only-one"
        assert how(whose(identifier(kubelet=[half]), **facts))[1] == "guess"


def test_an_init_container_that_runs_again_before_it_is_told_is_not_the_only_other() -> None:
    setup = replace(INIT, until=CRASHED_AT - SECOND)
    late = replace(APP, name="late", since=CRASHED_AT + 2 * SECOND)

    again = whose(identifier(pod("web-0", UID, "app", setup)), cgroup=cgroup(), comm="setup")
    other = whose(identifier(pod("web-0", UID, "app", setup)), cgroup=cgroup(), comm="bash")
    both = replace(setup, command="/bin/app")
    alike = whose(identifier(pod("web-0", UID, "app", both)), cgroup=cgroup(), comm="app")
    stale = whose(identifier(pod("web-0", UID, late, INIT)), cgroup=cgroup(), comm="late")

    assert (again.container, how(again)[1]) == ("setup", "guess")
    assert (other.container, how(other)[1]) == ("app", "only-one")
    assert (alike.container, how(alike)[1]) == ("app", "only-one")
    assert (stale.container, how(stale)[1]) == ("late", "guess")


# A guess.


@pytest.mark.parametrize(
    ("facts", "claim"),
    [
        ({"hostname": "web-0.example.com"}, Claim()),
        ({"hostname": "web-0"}, Claim(pod="bank-0")),
        ({"cgroup": f"/docker/{OTHER_ID}", "hostname": "web-0"}, Claim()),
        ({"cgroup": cgroup(STRANGE_UID), "hostname": "web-0"}, Claim()),
    ],
)
def test_of_a_guessed_pod_the_container_is_a_guess_too(facts: dict[str, Any], claim: Claim) -> None:
    found = whose(identifier(pod(), pod("bank-0", OTHER_UID)), claim, **facts)

    assert how(found) == ("guess", "guess")
    assert found.container


@pytest.mark.parametrize(("seconds", "by"), [(-60, "hostname"), (0, "guess"), (60, "hostname")])
def test_pods_of_one_name_that_may_both_have_been_there_are_a_guess(seconds: int, by: str) -> None:
    moment = CRASHED_AT + seconds * SECOND
    earlier = replace(EARLIER, until=CRASHED_AT + 5 * SECOND)
    later = replace(LATER, since=CRASHED_AT - 5 * SECOND)
    unknown = replace(earlier, since=0, until=None)

    found = whose(identifier(kubelet=[earlier, later]), hostname="web-0", crashed_at=moment)
    unordered = whose(
        identifier(kubelet=[unknown, replace(later, since=0)]),
        Claim(pod="web-0"),
        hostname="web-0",
        crashed_at=moment,
    )

    assert (found.pod, found.identity.by) == ("web-0", by)
    assert (unordered.pod, unordered.identity.by) == ("web-0", "guess")
