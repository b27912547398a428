"""The programs of the bundle: crashagent -> coremond -> qkview-collect, and corectl beside them.

crashagent takes crashes in, coremond converts and retains them, qkview-collect hands them out;
corectl is the operator's command line, a client of the three.
"""
