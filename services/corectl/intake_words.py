"""What the kernel tells its pipe helper of a crash, in words that are partly hostile.

The line is ``corectl intake -P%P -p%p … -h%h -- %E``; a value may also be a word of its own. The
host's name and the executable's path are chosen by the crashed process: whatever they are, they
are neither options nor paths here, and what cannot be read is left out. Kernels before 5.3 split
the line after they put the values in, so that spaces in these two make more words.
Source: core(5); Linux, fs/coredump.c, format_corename().
"""

NUMBERS = {
    "-P": ("host_pid", 1, 2**32 - 1),
    "-p": ("pid", 1, 2**32 - 1),
    "-i": ("tid", 1, 2**32 - 1),
    "-u": ("uid", 0, 2**32 - 1),
    "-g": ("gid", 0, 2**32 - 1),
    "-s": ("signal", 1, 255),
    "-t": ("crashed_at", 1, 2**63 // 10**9 - 1),
    "-c": ("rlimit", 0, 2**64 - 1),
    "-d": ("dumpable", 0, 2),
    "-F": ("pidfd", 0, 2**31 - 1),
}
"""The options whose values are numbers: what they are called, and their ranges."""

NANOSECONDS = 10**9
EMPTY = "!"
"""What the kernel writes for a name that is empty."""

Facts = dict[str, int | str]


def read_words(words: list[str]) -> tuple[Facts, str]:
    """Give the facts that *words* hold, and the env file they begin with ('' if with none).

    Never raises. The first word for a fact counts: what a hostile name adds comes later.
    """
    facts: Facts = {}
    seen: set[str] = set()
    env_file, place = (words[1], 2) if words[:1] == ["--env"] and len(words) > 1 else ("", 0)
    while place < len(words) and words[place] != "--":
        word, place = words[place], place + 1
        option, value = word[:2], word[2:]
        if option not in NUMBERS and option != "-h":
            continue
        if not value and place < len(words) and _is_value(option, words, place):
            value, place = words[place], place + 1
        if option in seen:
            continue
        seen.add(option)
        if option != "-h":
            facts |= _number(option, value)
        elif value not in {"", EMPTY}:
            facts["hostname"] = value
    return facts | _executable(words[place + 1 :]), env_file


def _is_value(option: str, words: list[str], place: int) -> bool:
    """Say whether the word at *place* belongs to the *option* before it, which has none yet."""
    word = words[place]
    if option == "-h":  # a host may be called "--"; then the real one is still to come
        return word != "--" or "--" in words[place + 1 :]
    return not word.startswith("-")


def _number(option: str, value: str) -> Facts:
    name, least, most = NUMBERS[option]
    if not (value.isascii() and value.isdecimal() and len(value) <= 20):
        return {}
    number = int(value)
    if not least <= number <= most:
        return {}
    return {name: number * NANOSECONDS if name == "crashed_at" else number}


def _executable(words: list[str]) -> Facts:
    """Read the path, in which the kernel wrote ``!`` for ``/``; without one it says the comm."""
    path = " ".join(words).replace("!", "/")
    return {"exe": path} if path.startswith("/") and path != "/" else {}
