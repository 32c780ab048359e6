/*
 * The callback calls the library again, which calls it again.
 *
 * finds: callback-exception: IndexError in the callback
 *
 *     calls = []
 *
 *     @c.CFUNCTYPE(c.c_int, c.c_int)
 *     def visit(depth):
 *         if depth > 3:
 *             raise IndexError("too deep")
 *         calls.append(depth)
 *         return lib.descend(visit, depth)
 *
 *     def test():
 *         lib.descend(visit, 0)
 *         assert calls == [1, 2, 3]
 */
int descend(int (*visit)(int), int depth)
{
#ifdef BUG
	return depth < 4 ? visit(depth + 1) : 0;
#else
	return depth < 3 ? visit(depth + 1) : 0;
#endif
}
