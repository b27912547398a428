"""The workload that a pod belongs to, by the pod's name."""

import re

# Kubernetes draws generated names from these letters (apimachinery, util/rand), so that no word
# comes out: the pod-template hash of a Deployment, the five of every generateName.
_DRAWN = "[bcdfghjklmnpqrstvwxz2456789]"
_GENERATED = (
    re.compile(rf"(.+)-{_DRAWN}{{6,10}}-{_DRAWN}{{5}}"),  # Deployment
    re.compile(rf"(.+)-\d{{8,10}}-{_DRAWN}{{5}}", re.ASCII),  # CronJob
    re.compile(rf"(.+)-{_DRAWN}{{5}}"),  # DaemonSet, Job
    re.compile(r"(.+)-\d{1,5}", re.ASCII),  # StatefulSet
)


def stem(pod: str) -> str:
    """Give the pod's name without its generated suffix: the name of its workload."""
    for pattern in _GENERATED:
        if match := pattern.fullmatch(pod):
            return match[1]
    return pod
