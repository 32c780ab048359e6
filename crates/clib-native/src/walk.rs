//! The live objects of the interpreter as words and buffers, for the engine's reachability scan.
//!
//! A raw scan of Python's memory gets two things wrong: integers are stored in digits of 30 bits, which look like no
//! pointer, and freed objects keep bytes that still do. So live objects are walked as objects, and Python's own arenas
//! are left out of the raw scan:
//!
//! 1. start from the objects given, follow `tp_traverse`;
//! 2. an `int` gives its value, `bytes` and the like their contents, and every instance of a type that is not one
//!    of the interpreter's own the memory of its C structure (where bindings keep their handles);
//! 3. ctypes, cffi and array objects give the buffers that they own. Buffers that they merely point to are not read: they
//!    may be gone;
//! 4. the arenas are found from the pools that the walked objects live in, and other pools by their headers (`pools`).
//!
//! Nothing here runs code of a user, changes an object, or keeps a reference after it returns.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::{c_int, c_void},
    hash::{BuildHasherDefault, Hasher},
};

use clib_hook::reach::{Reach, Roots, before, reachability};
use pyo3::{
    ffi,
    prelude::*,
    types::{PyDict, PyList, PyType},
};

use crate::{
    error::to_py,
    heap,
    hook::{Held, forget},
    pools::pools,
    variables::values,
};

/// `Py_TPFLAGS_HEAPTYPE` and its neighbours, as the stable ABI fixes them.
const HEAP_TYPE: u64 = 1 << 9;
const HAVE_GC: u64 = 1 << 14;
const LONG_SUBCLASS: u64 = 1 << 24;
const BYTES_SUBCLASS: u64 = 1 << 27;
const TYPE_SUBCLASS: u64 = 1 << 31;

/// Sizes of `obmalloc.c`, 3.10 to 3.13 on 64-bit machines.
pub(crate) const POOL: usize = 16 << 10;
const ARENA: usize = 1 << 20;

/// Words outside of this range are no address of user space.
const ADDRESSES: std::ops::Range<usize> = 0x1_0000..1 << 47;

/// Memory of up to this many bytes is read here; more is left to the scan, which reads it through the kernel.
const SMALL: usize = 4096;

/// Objects whose variable part is longer than this many items have a wrong `ob_size`.
const MOST_ITEMS: usize = 1 << 24;

const LIST_SUBCLASS: u64 = 1 << 25;
const DICT_SUBCLASS: u64 = 1 << 29;

/// Where the structures of containers point to their tables, by kind, in words from their start.
const LIST_TABLES: &[usize] = &[3]; // ob_item
const DICT_TABLES: &[usize] = &[4, 5]; // ma_keys, ma_values
const SET_TABLES: &[usize] = &[5]; // table
const DEQUE_TABLES: &[usize] = &[3, 4]; // leftblock, rightblock

/// What an object of a type tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Only its referents.
    Nothing,
    /// Its value.
    Integer,
    /// Its bytes.
    Bytes,
    /// Its bytes, which lie elsewhere.
    ByteArray,
    /// Its C structure, and a buffer that the type's own methods know.
    Owner,
    /// Its C structure: fixed bytes and bytes per item.
    Raw(usize, usize),
}

#[derive(Clone, Copy)]
struct Shape {
    content: Content,
    traverse: Option<ffi::traverseproc>,
    is_gc: Option<ffi::inquiry>,
    /// Always small and never static, so that it lies in an arena.
    in_arena: bool,
    /// Where it points to memory of its own.
    tables: &'static [usize],
}

/// Addresses are their own hash, but for the bits that alignment makes equal.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_usize(&mut self, address: usize) {
        self.0 = (address as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(crate) type ByAddress = BuildHasherDefault<AddressHasher>;

struct Walk<'py> {
    py: Python<'py>,
    owners: Vec<Bound<'py, PyAny>>,
    owner_types: Vec<Bound<'py, PyAny>>,
    roots: Roots,
    seen: HashSet<usize, ByAddress>,
    stack: Vec<*mut ffi::PyObject>,
    follow: bool,
    shapes: HashMap<usize, Shape, ByAddress>,
    /// Lowest and highest pool seen, by the index of the arena.
    arenas: BTreeMap<u32, (usize, usize)>,
    /// The C heaps, as (start, end).
    heaps: Vec<(usize, usize)>,
}

/// The `visitproc` of the walk; `arg` is the [`Walk`].
unsafe extern "C" fn visit(object: *mut ffi::PyObject, arg: *mut c_void) -> c_int {
    // SAFETY: `Walk::expand` passes itself as `arg`, and touches nothing of itself until the traversal returns.
    let walk = unsafe { &mut *arg.cast::<Walk<'_>>() };
    walk.push(object);
    0
}

impl<'py> Walk<'py> {
    fn push(&mut self, object: *mut ffi::PyObject) {
        if !object.is_null() && self.seen.insert(object as usize) {
            self.stack.push(object);
        }
    }

    fn new(py: Python<'py>, owner_types: Vec<Bound<'py, PyAny>>, follow: bool) -> Self {
        Self {
            py,
            owners: Vec::new(),
            owner_types,
            roots: Roots::default(),
            seen: HashSet::default(),
            stack: Vec::new(),
            follow,
            shapes: HashMap::default(),
            arenas: BTreeMap::new(),
            heaps: Vec::new(),
        }
    }

    /// Looks neither at `objects`, nor at what only they lead to.
    fn skip(&mut self, objects: &Bound<'py, PyList>) {
        self.seen.insert(objects.as_ptr() as usize);
        for object in objects.iter() {
            self.seen.insert(object.as_ptr() as usize);
        }
    }

    /// Walks from `objects`, and asks owners for their buffers.
    fn run(&mut self, objects: &Bound<'py, PyList>, buffer_of: &Bound<'py, PyAny>) -> PyResult<()> {
        self.seen.insert(objects.as_ptr() as usize);
        for object in objects.iter() {
            self.push(object.as_ptr());
        }
        while let Some(object) = self.stack.pop() {
            self.expand(object)?;
        }
        for owner in std::mem::take(&mut self.owners) {
            if let Some((start, length)) = buffer_of.call1((&owner,))?.extract()? {
                self.buffer(start, length);
            }
        }
        Ok(())
    }

    /// Notes what `object` tells, and pushes what it refers to.
    fn expand(&mut self, object: *mut ffi::PyObject) -> PyResult<()> {
        // SAFETY: `object` is a referent of a live object, and the interpreter lock is held throughout.
        let shape = self.shape(unsafe { ffi::Py_TYPE(object) })?;
        if shape.in_arena {
            self.note_arena(object as usize);
        }
        self.note_owned(object as usize);
        for table in shape.tables {
            let field: *const usize =
                std::ptr::with_exposed_provenance(object as usize + table * size_of::<usize>());
            // SAFETY: a field of the structure that all instances of this type begin with.
            self.note_owned(unsafe { field.read() });
        }
        match shape.content {
            Content::Nothing => {}
            Content::Integer => self.integer(object),
            Content::Bytes | Content::ByteArray => self.bytes(object, shape.content),
            Content::Owner => {
                // SAFETY: as above; the new reference keeps it alive until the walk is over.
                let owner = unsafe { Bound::from_borrowed_ptr(self.py, object) };
                self.owners.push(owner);
            }
            Content::Raw(fixed, item) => self.raw(object, fixed, item),
        }
        let Some(traverse) = shape.traverse.filter(|_| self.follow) else {
            return Ok(());
        };
        // SAFETY: the slot is the type's own, called with an instance of it.
        let collectable = shape
            .is_gc
            .is_none_or(|is_gc| unsafe { is_gc(object) != 0 });
        if collectable {
            let this: *mut Self = self;
            // SAFETY: the collector calls it the same way; `visit` takes `this` for what it is.
            unsafe { traverse(object, visit, this.cast()) };
        }
        Ok(())
    }

    fn integer(&mut self, object: *mut ffi::PyObject) {
        // SAFETY: the type's flags say that it is an int; the mask form sets no error for one.
        let value = unsafe { ffi::PyLong_AsUnsignedLongLongMask(object) };
        if let Ok(value) = usize::try_from(value)
            && ADDRESSES.contains(&value)
        {
            self.roots.values.push(value);
        }
    }

    fn bytes(&mut self, object: *mut ffi::PyObject, content: Content) {
        // SAFETY: the type's flags or bases say that it is bytes or a bytearray.
        let (start, length) = unsafe {
            if content == Content::Bytes {
                (ffi::PyBytes_AsString(object), ffi::PyBytes_Size(object))
            } else {
                (
                    ffi::PyByteArray_AsString(object),
                    ffi::PyByteArray_Size(object),
                )
            }
        };
        self.buffer(start as usize, usize::try_from(length).unwrap_or(0));
    }

    fn raw(&mut self, object: *mut ffi::PyObject, fixed: usize, item: usize) {
        let mut length = fixed;
        if item > 0 {
            // SAFETY: a type with an item size has variable-size instances, which begin with `PyVarObject`.
            let items = unsafe { ffi::Py_SIZE(object) }.unsigned_abs();
            if items <= MOST_ITEMS {
                length += items * item;
            }
        }
        let header = size_of::<ffi::PyObject>();
        self.buffer(object as usize + header, length.saturating_sub(header));
    }

    /// Memory of a live object, or a buffer that it owns.
    fn buffer(&mut self, start: usize, length: usize) {
        if length > SMALL {
            self.roots.buffers.push((start, length));
            return;
        }
        let aligned = start.next_multiple_of(size_of::<usize>());
        let mut at: *const usize = std::ptr::with_exposed_provenance(aligned);
        let words = (start + length).saturating_sub(aligned) / size_of::<usize>();
        for _ in 0..words {
            // SAFETY: `at` is aligned, and inside of a live object's memory for `words` words from `aligned` on.
            let word = unsafe { at.read() };
            if ADDRESSES.contains(&word) {
                self.roots.values.push(word);
            }
            at = at.wrapping_add(1);
        }
    }

    /// Large objects and tables lie in the C heap, with old bytes in what they do not use.
    fn note_owned(&mut self, address: usize) {
        if self
            .heaps
            .iter()
            .any(|(start, end)| (*start..*end).contains(&address))
        {
            self.roots.owned.push(!address);
        }
    }

    /// The loader describes each object by where it ends, among others, which is where the next mapping may begin.
    fn own_link_maps(&mut self) {
        const NEXT: usize = 3; // l_next, in words, after l_addr, l_name and l_ld
        // SAFETY: asks for the handle of the main program, which is there already, and gives it back at once.
        let mut map = unsafe {
            let handle = libc::dlopen(std::ptr::null(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            if !handle.is_null() {
                libc::dlclose(handle);
            }
            handle as usize
        };
        while map != 0 {
            self.note_owned(map);
            let next: *const usize =
                std::ptr::with_exposed_provenance(map + NEXT * size_of::<usize>());
            // SAFETY: a handle is the first of a list of `struct link_map`, whose head is public. The interpreter lock keeps
            // other threads of Python from loading and unloading meanwhile.
            map = unsafe { next.read() };
        }
    }

    /// The pool that `object` lies in belongs to an arena, whose index stands in the pool's header.
    fn note_arena(&mut self, object: usize) {
        let pool = object & !(POOL - 1);
        let index: *const u32 = std::ptr::with_exposed_provenance(pool + 32);
        // SAFETY: a small object of this kind comes from a pool, whose header is mapped as long as the object lives.
        let index = unsafe { index.read() };
        let (low, high) = self.arenas.entry(index).or_insert((pool, pool));
        *low = pool.min(*low);
        *high = pool.max(*high);
    }

    fn shape(&mut self, kind: *mut ffi::PyTypeObject) -> PyResult<Shape> {
        if let Some(shape) = self.shapes.get(&(kind as usize)) {
            return Ok(*shape);
        }
        // SAFETY: the type of a live object is alive.
        let bound = unsafe { Bound::<PyAny>::from_borrowed_ptr(self.py, kind.cast()) };
        let shape = self.new_shape(kind, &bound)?;
        self.shapes.insert(kind as usize, shape);
        Ok(shape)
    }

    fn new_shape(
        &self,
        kind: *mut ffi::PyTypeObject,
        bound: &Bound<'py, PyAny>,
    ) -> PyResult<Shape> {
        // SAFETY: `kind` is a live type object.
        let flags = unsafe { ffi::PyType_GetFlags(kind) };
        let slot = |number| {
            // SAFETY: as above; since 3.10 any type may be asked for any slot.
            unsafe { ffi::PyType_GetSlot(kind, number) }
        };
        let (mut traverse, mut is_gc) = (None, None);
        if flags & HAVE_GC != 0 {
            let (traverse_slot, is_gc_slot) = (slot(ffi::Py_tp_traverse), slot(ffi::Py_tp_is_gc));
            // SAFETY: these are the types of these slots; NULL is `None`.
            traverse = unsafe {
                std::mem::transmute::<*mut c_void, Option<ffi::traverseproc>>(traverse_slot)
            };
            // SAFETY: as above.
            is_gc = unsafe { std::mem::transmute::<*mut c_void, Option<ffi::inquiry>>(is_gc_slot) };
        }
        Ok(Shape {
            content: self.content(flags, bound)?,
            traverse,
            is_gc,
            tables: if self.heaps.is_empty() {
                &[]
            } else {
                self.tables(flags, kind)?
            },
            in_arena: is_any(
                kind,
                &[
                    &raw mut ffi::PyDict_Type,
                    &raw mut ffi::PyList_Type,
                    &raw mut ffi::PyCFunction_Type,
                ],
            ),
        })
    }

    fn tables(&self, flags: u64, kind: *mut ffi::PyTypeObject) -> PyResult<&'static [usize]> {
        let set_types = [&raw mut ffi::PySet_Type, &raw mut ffi::PyFrozenSet_Type];
        // SAFETY: all are type objects.
        let is_set = set_types
            .iter()
            .any(|set| unsafe { ffi::PyType_IsSubtype(kind, *set) } != 0);
        let deque = self.py.import("collections")?.getattr("deque")?;
        // SAFETY: as above.
        let is_deque = unsafe { ffi::PyType_IsSubtype(kind, deque.as_ptr().cast()) } != 0;
        Ok(if flags & LIST_SUBCLASS != 0 {
            LIST_TABLES
        } else if flags & DICT_SUBCLASS != 0 {
            DICT_TABLES
        } else if is_set {
            SET_TABLES
        } else if is_deque {
            DEQUE_TABLES
        } else {
            &[]
        })
    }

    fn content(&self, flags: u64, kind: &Bound<'py, PyAny>) -> PyResult<Content> {
        if flags & LONG_SUBCLASS != 0 {
            return Ok(Content::Integer);
        }
        if flags & BYTES_SUBCLASS != 0 {
            return Ok(Content::Bytes);
        }
        for owner in &self.owner_types {
            if is_subtype(kind, owner) {
                return Ok(Content::Owner);
            }
        }
        let byte_array = (&raw mut ffi::PyByteArray_Type).cast::<ffi::PyObject>();
        // SAFETY: a static type of the interpreter.
        if is_subtype(kind, &unsafe {
            Bound::from_borrowed_ptr(self.py, byte_array)
        }) {
            return Ok(Content::ByteArray);
        }
        let ours = kind.is(self.py.get_type::<Held>());
        let static_type = flags & HEAP_TYPE == 0;
        let name: String = kind.getattr("__name__")?.extract()?;
        let builtin = static_type
            && name != "PyCapsule"
            && kind
                .getattr("__module__")
                .and_then(|module| module.extract::<String>())
                .is_ok_and(|module| module == "builtins");
        if ours || builtin || flags & TYPE_SUBCLASS != 0 {
            return Ok(Content::Nothing);
        }
        let fixed: usize = kind.getattr("__basicsize__")?.extract()?;
        let item: usize = kind.getattr("__itemsize__")?.extract().unwrap_or(0);
        Ok(Content::Raw(fixed, item))
    }

    /// Leaves the arenas out of the scan: their pools, and where others of the same arena may be.
    ///
    /// No pool of an arena is further from another than the arena is long. Around the pools seen other things may lie, too,
    /// so that what belongs to another mapping or to a loaded object is not left out.
    fn exclude_arenas(&mut self, mappings: &[(usize, usize)]) {
        let objects = clib_hook::objects::loaded();
        for &(low, high) in self.arenas.values() {
            let end = high + POOL;
            if end - low > ARENA {
                continue; // not pools after all: another allocator
            }
            let (mut first, mut last) = (low, end);
            // With all pools seen, or all but the one that alignment costs, there are no others.
            if end - low < ARENA - POOL {
                let (from, to) = mappings
                    .iter()
                    .map(|(from, to)| (!from, !to))
                    .find(|(from, to)| (*from..*to).contains(&low))
                    .unwrap_or((low, end));
                first = end.saturating_sub(ARENA).max(from);
                last = (low + ARENA).min(to).max(end);
                for object in &objects {
                    if object.end <= low {
                        first = first.max(object.end);
                    } else if object.start >= end {
                        last = last.min(object.start);
                    }
                }
            }
            self.roots.exclude.push((first, last - first));
        }
        let mappings = mappings.iter().map(|(from, to)| (!from, !to));
        let others = pools(mappings).into_iter();
        let others = others.map(|(start, end)| (start, end - start));
        self.roots.exclude.extend(others);
    }
}

fn is_any(kind: *mut ffi::PyTypeObject, known: &[*mut ffi::PyTypeObject]) -> bool {
    known.contains(&kind)
}

fn is_subtype(kind: &Bound<'_, PyAny>, of: &Bound<'_, PyAny>) -> bool {
    // SAFETY: both are type objects.
    unsafe { ffi::PyType_IsSubtype(kind.as_ptr().cast(), of.as_ptr().cast()) != 0 }
}

/// How each of `held` can be reached: `reachable`, `lost` or `indirect`.
///
/// `objects` are where the walk begins, `skip` is not looked into. `owner_types` are the types whose instances own memory
/// that `buffer_of(instance)` tells as (address, bytes), or `None`. `exclude` is memory, as (address, bytes), that is not
/// scanned, and so are the interpreter's arenas if `mappings` tells the anonymous mappings that they lie in, as (start, end),
/// both inverted: a library's own mapping may be among them, and must not be held by this list. `heaps` are the C heaps, as
/// (start, end); what the interpreter has there is not scanned either.
#[pyfunction]
#[pyo3(signature = (held, objects, *, skip, owner_types, buffer_of, exclude, mappings, heaps))]
fn reach<'py>(
    py: Python<'py>,
    held: Vec<Bound<'py, Held>>,
    objects: &Bound<'py, PyList>,
    skip: &Bound<'py, PyList>,
    owner_types: Vec<Bound<'py, PyAny>>,
    buffer_of: &Bound<'py, PyAny>,
    exclude: Vec<(usize, usize)>,
    mappings: Vec<(usize, usize)>,
    heaps: Vec<(usize, usize)>,
) -> PyResult<Vec<&'static str>> {
    let mut walk = Walk::new(py, owner_types, true);
    walk.roots.exclude = exclude;
    walk.heaps = heaps;
    walk.skip(skip);
    walk.run(objects, buffer_of)?;
    if !mappings.is_empty() {
        walk.exclude_arenas(&mappings);
    }
    walk.own_link_maps();
    walk.roots
        .owned
        .sort_unstable_by(|one, other| other.cmp(one));
    judge(&held, walk.roots)
}

/// For each of `held` whether the variables of `namespaces` lead to it, directly or through other blocks of the libraries:
/// their values and what these contain, without instances of the types `passed` and the objects in `skip`. `buffers`, as
/// (address, bytes), are looked through as well. What is not found this way may still be held.
#[pyfunction]
#[pyo3(signature = (held, namespaces, *, skip, passed, owner_types, buffer_of, buffers))]
fn leads_to<'py>(
    py: Python<'py>,
    held: Vec<Bound<'py, Held>>,
    namespaces: Vec<Bound<'py, PyDict>>,
    skip: &Bound<'py, PyList>,
    passed: Vec<Bound<'py, PyType>>,
    owner_types: Vec<Bound<'py, PyAny>>,
    buffer_of: &Bound<'py, PyAny>,
    buffers: Vec<(usize, usize)>,
) -> PyResult<Vec<bool>> {
    let mut walk = Walk::new(py, owner_types, false);
    walk.skip(skip);
    walk.roots.buffers = buffers;
    walk.run(&values(py, namespaces, &passed)?, buffer_of)?;
    walk.roots.only = true;
    let found = judge(&held, walk.roots)?;
    Ok(found.into_iter().map(|how| how == "reachable").collect())
}

fn judge(held: &[Bound<'_, Held>], mut roots: Roots) -> PyResult<Vec<&'static str>> {
    let mut plain: Vec<_> = held.iter().map(|held| held.get().plain()).collect();
    roots.exclude.push(heap::region());
    let found = reachability(&plain, &roots).map_err(to_py);
    forget(&mut plain);
    Ok(found?
        .into_iter()
        .map(|reach| match reach {
            Reach::Reachable => "reachable",
            Reach::Lost => "lost",
            Reach::IndirectlyLost => "indirect",
        })
        .collect())
}

/// Remembers what stands in the C heap now: no pointers to what is acquired later.
#[pyfunction]
fn remember_heap() -> PyResult<()> {
    before::remember().map_err(to_py)
}

/// Adds what this module exports.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(remember_heap, module)?)?;
    module.add_function(wrap_pyfunction!(reach, module)?)?;
    module.add_function(wrap_pyfunction!(leads_to, module)?)
}
