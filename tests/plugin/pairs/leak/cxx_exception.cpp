/*
 * An exception passes a raw array.
 *
 * finds: leak: 1 block (100 bytes) lost: operator new[] in convert
 *
 *     def test():
 *         assert lib.convert(b"x") == -1
 */
#include <memory>
#include <stdexcept>

static int digit(const char *text)
{
	if (*text < '0' || *text > '9')
		throw std::invalid_argument(text);
	return *text - '0';
}

extern "C" int convert(const char *text)
{
	try {
#ifdef BUG
		char *volatile buffer = new char[100];
		int value = digit(text);
		delete[] buffer;
#else
		std::unique_ptr<char[]> buffer(new char[100]);
		int value = digit(text);
#endif
		return value;
	} catch (const std::invalid_argument &) {
		return -1;
	}
}
