/*
 * The callback returns what cannot be converted.
 *
 * finds: callback-exception: TypeError in the callback
 *
 *     @c.CFUNCTYPE(c.c_int, c.c_int)
 *     def answer(question):
 *         return {1: 42}.get(question)
 *
 *     def test():
 *         assert lib.ask(answer) in (0, 42)
 */
int ask(int (*answer)(int))
{
#ifdef BUG
	return answer(2);
#else
	return answer(1);
#endif
}
