"""`python -m support.one_core MODULE ARGUMENTS` runs a module on one core of those that this process may use."""

import os
import sys

from litlab.process.child_process import run_module

if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    run_module(sys.argv[1], sys.argv[2:])
