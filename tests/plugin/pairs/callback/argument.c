/*
 * The library hands a wrong value to its callback, whose assertion nobody sees.
 *
 * finds: callback-exception: AssertionError in the callback
 *
 *     @c.CFUNCTYPE(c.c_int, c.c_int)
 *     def on_event(number):
 *         assert number == 7
 *         return 0
 *
 *     def test():
 *         assert lib.emit(on_event) == 0
 */
int emit(int (*callback)(int))
{
#ifdef BUG
	return callback(8);
#else
	return callback(7);
#endif
}
