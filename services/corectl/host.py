"""``corectl host``: whether the kernel of this host hands its cores over, and that it does."""

from argparse import Namespace
from importlib import import_module

from services.corectl.settings import CorectlSettings

_MODULES = {
    "check": "host_check",
    "prepare": "host_prepare",
    "restore": "host_prepare",
    "doctor": "host_doctor",
}


def run(settings: CorectlSettings, args: Namespace) -> int:
    """Run one of its actions; only what that needs is imported."""
    module = import_module(f"services.corectl.{_MODULES[args.action]}")
    status: int = getattr(module, args.action)(settings, args)
    return status
