"""Freed memory stays with a process that trains: the kernel need not map it again."""

import platform
import subprocess
import sys

import pytest

PAGE_FAULTS = """
import ctypes, os, resource, sys
from litlab.process.allocator import keep_freed_memory

SIZE = 40 << 20  # more than the largest threshold to which glibc adapts itself
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(SIZE)))
        libc.memset(block, 1, ctypes.c_size_t(SIZE))
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    assert keep_freed_memory()
if sys.argv[1:] == ["kept", "fork"] and (child := os.fork()):
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
faults()
print(faults())
"""


def count_page_faults(*arguments: str) -> int:
    command = [sys.executable, "-c", PAGE_FAULTS, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have no such setting")
def test_freed_memory_is_used_again() -> None:
    by_default = count_page_faults("default")
    assert by_default > 1000, "or this test shows nothing"
    assert count_page_faults("kept") < by_default / 50
    assert count_page_faults("kept", "fork") < by_default / 50
