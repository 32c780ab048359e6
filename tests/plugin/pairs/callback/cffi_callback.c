/*
 * cffi swallows as well.
 *
 * finds: callback-exception: ZeroDivisionError in the callback
 *
 *     def test():
 *         ffi = cffi.FFI()
 *         ffi.cdef("int apply(int (*)(int));")
 *         library = ffi.dlopen(lib._name)
 *         library.apply(ffi.callback("int(int)", lambda n: 10 // n))
 */
int apply(int (*function)(int))
{
#ifdef BUG
	return function(0);
#else
	return function(2);
#endif
}
