/*
 * An exception in the middle loses the first object.
 *
 * finds: leak: of operator new
 *
 *     def test():
 *         lib.run()
 */
#include <new>

extern "C" int run()
{
	int *first = nullptr;

	try {
		first = new int(1);
		char *second = new char[32];
		delete[] second;
	} catch (const std::bad_alloc &) {
#ifndef BUG
		delete first;
#endif
		return -1;
	}
	delete first;
	return 0;
}
