#!/usr/bin/env python3
"""Runs a program for which no file system knows rename flags and hard links: no_links.py PROGRAM...

A system call filter answers renameat2 with flags with EINVAL, and link and linkat with EPERM, as exFAT
by FUSE does. x86-64 and 64-bit ARM.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

ARCHITECTURES = {
    # Of the audit, renameat2, linkat, link (which 64-bit ARM has not).
    "x86_64": (0xC000003E, 316, 265, 86),
    "aarch64": (0xC00000B7, 276, 37, 37),
}
LOAD, EQUALS, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, FIFTH_ARGUMENT = 0, 4, 16 + 4 * 8
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


def program():
    audit, renameat2, linkat, link = ARCHITECTURES[platform.machine()]
    steps = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUALS, 0, 6, audit),
        (LOAD, 0, 0, NUMBER),
        (EQUALS, 5, 0, linkat),
        (EQUALS, 4, 0, link),
        (EQUALS, 0, 2, renameat2),
        (LOAD, 0, 0, FIFTH_ARGUMENT),
        # With flags 0 it is a plain rename.
        (EQUALS, 0, 2, 0),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, ERRNO | errno.EPERM),
        (RETURN, 0, 0, ERRNO | errno.EINVAL),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps), len(steps)


def main():
    code, length = program()
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("HxxxxxxP", length, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_program, 0, 0)]:
        if libc.prctl(*call) != 0:
            sys.exit(f"the filter is refused: {os.strerror(ctypes.get_errno())}")
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
