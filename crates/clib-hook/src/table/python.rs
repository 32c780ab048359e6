//! The Python C API's allocators and constructors, as extension modules call them. A group of its own, off by default.

use libc::ENOMEM;

use super::{Failure, Function, Group};

const fn allocator(name: &'static str, prototype: &'static str) -> Function {
    Function::new(Group::Python, name, prototype).null(&[ENOMEM])
}

const fn constructor(name: &'static str, prototype: &'static str) -> Function {
    Function::new(Group::Python, name, prototype).fails(Failure::PythonNull, &[])
}

pub(super) const ROWS: &[Function] = &[
    allocator("PyMem_Malloc", "void *PyMem_Malloc(size_t size)"),
    allocator(
        "PyMem_Calloc",
        "void *PyMem_Calloc(size_t count, size_t size)",
    ),
    allocator(
        "PyMem_Realloc",
        "void *PyMem_Realloc(void *block, size_t size)",
    ),
    allocator("PyMem_RawMalloc", "void *PyMem_RawMalloc(size_t size)"),
    allocator(
        "PyMem_RawCalloc",
        "void *PyMem_RawCalloc(size_t count, size_t size)",
    ),
    allocator(
        "PyMem_RawRealloc",
        "void *PyMem_RawRealloc(void *block, size_t size)",
    ),
    allocator("PyObject_Malloc", "void *PyObject_Malloc(size_t size)"),
    allocator(
        "PyObject_Calloc",
        "void *PyObject_Calloc(size_t count, size_t size)",
    ),
    allocator(
        "PyObject_Realloc",
        "void *PyObject_Realloc(void *block, size_t size)",
    ),
    constructor("_PyObject_New", "PyObject *_PyObject_New(PyTypeObject *)"),
    constructor(
        "_PyObject_GC_New",
        "PyObject *_PyObject_GC_New(PyTypeObject *)",
    ),
    constructor(
        "PyType_GenericAlloc",
        "PyObject *PyType_GenericAlloc(PyTypeObject *, Py_ssize_t)",
    ),
    constructor("PyList_New", "PyObject *PyList_New(Py_ssize_t)"),
    constructor("PyTuple_New", "PyObject *PyTuple_New(Py_ssize_t)"),
    constructor("PyTuple_Pack", "PyObject *PyTuple_Pack(Py_ssize_t, ...)"),
    constructor("PyDict_New", "PyObject *PyDict_New(void)"),
    constructor("PySet_New", "PyObject *PySet_New(PyObject *)"),
    constructor("PyLong_FromLong", "PyObject *PyLong_FromLong(long)"),
    constructor(
        "PyLong_FromUnsignedLong",
        "PyObject *PyLong_FromUnsignedLong(unsigned long)",
    ),
    constructor(
        "PyLong_FromLongLong",
        "PyObject *PyLong_FromLongLong(long long)",
    ),
    constructor(
        "PyLong_FromUnsignedLongLong",
        "PyObject *PyLong_FromUnsignedLongLong(unsigned long long)",
    ),
    constructor(
        "PyLong_FromSsize_t",
        "PyObject *PyLong_FromSsize_t(Py_ssize_t)",
    ),
    constructor("PyLong_FromSize_t", "PyObject *PyLong_FromSize_t(size_t)"),
    constructor("PyLong_FromVoidPtr", "PyObject *PyLong_FromVoidPtr(void *)"),
    constructor("PyFloat_FromDouble", "PyObject *PyFloat_FromDouble(double)"),
    constructor(
        "PyBytes_FromString",
        "PyObject *PyBytes_FromString(const char *)",
    ),
    constructor(
        "PyBytes_FromStringAndSize",
        "PyObject *PyBytes_FromStringAndSize(const char *, Py_ssize_t)",
    ),
    constructor(
        "PyUnicode_New",
        "PyObject *PyUnicode_New(Py_ssize_t, Py_UCS4)",
    ),
    constructor(
        "PyUnicode_FromString",
        "PyObject *PyUnicode_FromString(const char *)",
    ),
    constructor(
        "PyUnicode_FromStringAndSize",
        "PyObject *PyUnicode_FromStringAndSize(const char *, Py_ssize_t)",
    ),
    constructor(
        "PyUnicode_FromFormat",
        "PyObject *PyUnicode_FromFormat(const char *, ...)",
    ),
    constructor(
        "PyUnicode_DecodeUTF8",
        "PyObject *PyUnicode_DecodeUTF8(const char *, Py_ssize_t, const char *)",
    ),
    constructor(
        "PyUnicode_AsUTF8String",
        "PyObject *PyUnicode_AsUTF8String(PyObject *)",
    ),
    constructor(
        "PyObject_CallObject",
        "PyObject *PyObject_CallObject(PyObject *, PyObject *)",
    ),
    constructor("PyObject_Str", "PyObject *PyObject_Str(PyObject *)"),
    constructor("PyObject_Repr", "PyObject *PyObject_Repr(PyObject *)"),
    constructor(
        "PyCapsule_New",
        "PyObject *PyCapsule_New(void *, const char *, PyCapsule_Destructor)",
    ),
    constructor(
        "PyMemoryView_FromObject",
        "PyObject *PyMemoryView_FromObject(PyObject *)",
    ),
    constructor(
        "Py_BuildValue",
        "PyObject *Py_BuildValue(const char *, ...)",
    )
    .alias(&["_Py_BuildValue_SizeT"]),
];
