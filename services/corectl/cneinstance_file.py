"""Find the one CNEInstance in a file of resources."""

import os
import sys
from typing import Any, BinaryIO

import yaml

from common.errors import CollectorError

SIZE_LIMIT = 2**20
"""Bytes of the input: etcd takes no object of more than 1.5 MiB, and this is one."""
KIND = "CNEInstance"
GROUPS = ("k8s.f5.com", "k8s.f5net.com")


class _Loader(yaml.SafeLoader):
    """Loads plain data, and takes a key that stands twice for the mistake that it is."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} stands here twice", problem_mark=key.start_mark
                )
            seen.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def read_input(name: str) -> bytes:
    """Read the file *name*, or standard input for ``-``."""
    if name == "-":
        return _read_limited(sys.stdin.buffer, "standard input")
    # Without O_NONBLOCK, a FIFO that nobody writes to would be waited for.
    with open(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return _read_limited(file, name)


def _read_limited(file: BinaryIO, name: str) -> bytes:
    data = file.read(SIZE_LIMIT + 1)
    if len(data) > SIZE_LIMIT:
        raise CollectorError(f"{name}: more than {SIZE_LIMIT} bytes; that is no {KIND}")
    return data


def read_documents(data: bytes) -> list[Any]:
    """Read the YAML or JSON documents of *data*; a List is what is in it."""
    try:
        documents = list(yaml.load_all(data.decode(), Loader=_Loader))
    except UnicodeDecodeError as error:
        raise CollectorError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        raise CollectorError(_told(error)) from error
    except (yaml.YAMLError, ValueError) as error:
        raise CollectorError(f"not YAML: {error}") from error
    except RecursionError as error:
        raise CollectorError("not a resource: it is nested too deeply") from error
    found = []
    for document in documents:
        items = document.get("items") if isinstance(document, dict) else None
        found += items if isinstance(items, list) else [document]
    return found


def _told(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = error.problem or error.context or ""
    if "\\t" in problem:
        problem = "a tab; indent with spaces"
    return f"not YAML: {where}{problem}"


def choose(documents: list[Any], name: str | None = None) -> dict[str, Any]:
    """Give the one CNEInstance among *documents*, or the one called *name*."""
    found = [
        document
        for document in documents
        if isinstance(document, dict)
        and document.get("kind") == KIND
        and (name is None or name_of(document) == name)
    ]
    called = f" called {name}" if name is not None else ""
    if not found:
        kinds = sorted({str(d.get("kind")) for d in documents if isinstance(d, dict)})
        others = f", but {', '.join(kinds)}" if kinds else ""
        raise CollectorError(f"there is no {KIND}{called}{others}")
    if len(found) > 1:
        names = ", ".join(str(name_of(document)) for document in found)
        raise CollectorError(f"there are {len(found)} of kind {KIND}: choose by --name: {names}")
    [document] = found
    version = str(document.get("apiVersion"))
    if version.partition("/")[0] not in GROUPS or version.count("/") != 1:
        expected = " or ".join(f"{group}/v1" for group in GROUPS)
        raise CollectorError(f"apiVersion is {version}, and not {expected}")
    return document


def name_of(document: dict[str, Any]) -> Any:
    """Give the name that *document* has as a resource; None if it has none."""
    metadata = document.get("metadata")
    return metadata.get("name") if isinstance(metadata, dict) else None
