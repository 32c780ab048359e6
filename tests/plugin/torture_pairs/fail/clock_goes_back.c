/*
 * The clock is believed to go forward only.
 *
 * finds: failed
 *
 *     def test(clib):
 *         times = iter([100, 90])
 *
 *         def now(_clock, into):
 *             c.c_long.from_address(into).value = next(times)
 *             return 0
 *
 *         clib.mock("clock_gettime", now)
 *         lib.elapsed.restype = c.c_ulong
 *         lib.begin()
 *         assert lib.elapsed() == 0
 */
#include <time.h>

static unsigned long began;

static unsigned long now(void)
{
	struct timespec time;

	return clock_gettime(CLOCK_REALTIME, &time) == 0 ? (unsigned long)time.tv_sec : 0;
}

void begin(void)
{
	began = now();
}

unsigned long elapsed(void)
{
	unsigned long time = now();

#ifndef BUG
	if (time < began)
		return 0;
#endif
	return time - began;
}
