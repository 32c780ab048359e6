/*
 * An exception leaves a function that promised none.
 *
 * finds: abort: when operator new
 *
 *     def test():
 *         lib.run()
 */
#include <new>

#ifdef BUG
static int *make() noexcept
{
	return new int(1);
}
#else
static int *make() noexcept
{
	return new (std::nothrow) int(1);
}
#endif

extern "C" int run()
{
	int *made = make();

	if (made == nullptr)
		return -1;
	delete made;
	return 0;
}
