"""What the system tests share: one API server for all of them."""

from collections.abc import Iterator

import pytest

from tests.cluster import ASSETS, Cluster, find_assets


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    assets = find_assets()
    if assets is None:
        pytest.skip(f"etcd and kube-apiserver are missing ({ASSETS} names their directory)")
    with Cluster(assets) as started:
        yield started
