/*
 * pytest_clib.callback: C gets the error value and the errno, Python gets the exception.
 *
 * finds: callback-exception: AssertionError in the callback
 *
 *     @pytest_clib.callback(c.CFUNCTYPE(c.c_int, c.c_int), error=-1, errno=errno.EBUSY)
 *     def quiesce(flags):
 *         assert not flags
 *         return 0
 *
 *     def test():
 *         lib.reset(quiesce)
 */
#include <errno.h>
#include <stdlib.h>

int reset(int (*quiesce)(int))
{
#ifdef BUG
	int flags = 1;
#else
	int flags = 0;
#endif

	errno = 0;
	if (quiesce(flags) == 0)
		return 0;
	if (errno != EBUSY)
		abort();
	return -1;
}
