# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False
"""Binds csrc to numpy arrays: checks the arrays, drops the GIL, calls, turns the status into an error."""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t

from operator import index as whole

import numpy as np

from modelwire.errors import ConfigError, KernelError

from .csrc cimport *
from .statuses import error_of

STATUS_END = int(MW_STATUS_END)


cdef int _check(mw_status status, size_t at=0, size_t size=0, size_t tensor=0) except -1:
    if status != MW_OK:
        raise error_of(status, tensor=tensor, index=at, size=size)
    return 0


include "arrays.pxi"


def kernel_name():
    """Return the name of the implementation that runs."""
    return mw_chosen().decode()


def kernel_names():
    """Return the names of all implementations in this build, the best first."""
    cdef size_t i = 0
    names = []
    while mw_kernel_name(i) is not NULL:
        names.append(mw_kernel_name(i).decode())
        i += 1
    return tuple(names)


def choose(name):
    """Let the implementation `name` run, or the best for this processor when it is empty. Raises ConfigError."""
    cdef bytes encoded = name.encode()
    if mw_choose(encoded) != MW_OK:
        raise ConfigError(reason=f"MODELWIRE_KERNEL={name}: this build and processor have {', '.join(kernel_names())} and reference")


include "integrity.pxi"
include "round.pxi"
include "apply.pxi"
include "sections.pxi"
include "planes.pxi"
include "model.pxi"
