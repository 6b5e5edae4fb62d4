# The head trainer.

cdef str _F16 = "e", _I8 = "b"
_KINDS[_F16] = "float16"
_KINDS[_I8] = "int8"


cdef uint32_t _count(object number, uint32_t most=0xFFFFFFFF):
    """Return a width or count as C takes it; whatever does not fit becomes 0, which no head has."""
    number = whole(number)
    return number if 0 <= number <= most else 0


cdef class _Head:
    """A head's recipe as C takes it."""

    cdef mw_head c

    def __cinit__(self, recipe):
        cdef tuple hidden = tuple(recipe.hidden)
        self.c.features = _count(recipe.features)
        self.c.hidden[0] = _count(hidden[0]) if hidden else 0
        self.c.hidden[1] = _count(hidden[1]) if len(hidden) > 1 else 0
        self.c.outputs = _count(recipe.outputs)
        if len(hidden) > 2 or 0 in self.c.hidden[:min(len(hidden), 2)]:
            raise error_of(MW_HEAD)
        self.c.activation = _count(recipe.activation, 255)
        self.c.loss = _count(recipe.loss, 255)
        self.c.optimizer = _count(recipe.optimizer, 255)
        self.c.schedule = _count(recipe.schedule, 255)
        self.c.batch = _count(recipe.batch)
        self.c.steps = _count(recipe.steps)
        self.c.every = _count(recipe.every)
        self.c.seed = whole(recipe.seed) & 0xFFFFFFFFFFFFFFFF
        self.c.rate = recipe.rate
        self.c.rate_end = recipe.rate_end
        self.c.factor = recipe.factor
        self.c.decay = recipe.decay
        self.c.beta1 = recipe.beta1
        self.c.beta2 = recipe.beta2
        self.c.epsilon = recipe.epsilon
        if not mw_head_size(&self.c):
            raise error_of(MW_HEAD)


cdef class _Rows:
    """Features, and what they should give, as C takes them."""

    cdef mw_rows c
    cdef _Arrays arrays

    def __cinit__(self, _Head head, features, scale):
        self.arrays = _Arrays()
        format = memoryview(features).format if hasattr(features, "__array_interface__") else ""
        if format == "b":
            self.c.features = self.arrays.take(features, "features", _I8, 1)
            self.c.dtype = 4
        elif format == "e":
            self.c.features = self.arrays.take(features, "features", _F16, 2)
            self.c.dtype = 2
        else:
            self.c.features = self.arrays.floats(features, "features")
            self.c.dtype = 1
        self.c.scale = scale
        self.c.n = self.arrays.n // head.c.features
        if not self.c.n or self.c.n * head.c.features != <size_t>self.arrays.n:
            raise KernelError(what="features", reason=f"expected whole rows of {head.c.features}, got {self.arrays.n} entries")

    cdef int expect(self, _Head head, wanted) except -1:
        cdef size_t n = self.c.n
        if head.c.loss == 1:
            self.c.labels = <const uint32_t *>self.arrays.take(wanted, "labels", _U32, 4, False, n)
        else:
            self.c.targets = <const float *>self.arrays.take(wanted, "targets", _F32, 4, False, n * head.c.outputs)
        return 0


cdef object _workspace(_Head head, _Rows rows):
    cdef size_t length = mw_head_workspace(&head.c, rows.c.n)
    if not length:
        raise error_of(MW_HEAD)
    return np.empty(length, np.uint8)


def check_arithmetic():
    _check(mw_check_arithmetic())


def head_train(recipe, features, wanted, weights, slots, *, scale, step, count):
    cdef _Head head = _Head(recipe)
    cdef _Rows rows = _Rows(head, features, scale)
    rows.expect(head, wanted)
    cdef _Arrays a = _Arrays()
    cdef size_t size = mw_head_size(&head.c), at = 0
    cdef float *p_weights = <float *>a.take(weights, "weights", _F32, 4, True, size)
    cdef float *p_slots = <float *>a.take(slots, "slots", _F32, 4, True, size * mw_head_slots(&head.c))
    if not 0 <= whole(step) <= head.c.steps or not 0 <= whole(count) <= head.c.steps - step:
        raise error_of(MW_HEAD)
    cdef uint64_t now = step
    cdef uint32_t steps = count
    losses = np.empty(steps, np.float32)
    cdef float *p_losses = <float *>a.take(losses, "losses", _F32, 4, True, steps)
    cdef object workspace = _workspace(head, rows)
    cdef size_t length = len(workspace)
    cdef uint8_t *p_workspace = <uint8_t *>a.take(workspace, "workspace", _BYTES, 1, True, length)
    cdef mw_status status
    with nogil:
        status = mw_head_train(&head.c, &rows.c, p_weights, p_slots, &now, steps, p_losses, p_workspace, length, &at)
    _check(status, at, rows.c.n)
    return losses


def head_infer(recipe, features, weights, *, scale):
    cdef _Head head = _Head(recipe)
    cdef _Rows rows = _Rows(head, features, scale)
    cdef _Arrays a = _Arrays()
    cdef const float *p_weights = <const float *>a.take(weights, "weights", _F32, 4, False, mw_head_size(&head.c))
    out = np.empty(rows.c.n * head.c.outputs, np.float32)
    cdef float *p_out = <float *>a.take(out, "out", _F32, 4, True, len(out))
    cdef object workspace = _workspace(head, rows)
    cdef size_t length = len(workspace), at = 0
    cdef uint8_t *p_workspace = <uint8_t *>a.take(workspace, "workspace", _BYTES, 1, True, length)
    cdef mw_status status
    with nogil:
        status = mw_head_infer(&head.c, &rows.c, p_weights, p_out, p_workspace, length, &at)
    _check(status, at, rows.c.n)
    return out


def permutation(seed, epoch, n):
    cdef _Arrays a = _Arrays()
    order = np.empty(whole(n), np.uint32)
    cdef uint32_t *p_order = <uint32_t *>a.take(order, "order", _U32, 4, True)
    cdef size_t length = a.n
    cdef uint64_t first = _start(seed), second = _start(epoch)
    with nogil:
        mw_permutation(first, second, p_order, length)
    return order
