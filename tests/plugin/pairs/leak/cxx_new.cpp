/*
 * operator new is an allocation as any other.
 *
 * finds: leak: 1 block (40 bytes) lost: operator new in area
 *
 *     def test():
 *         assert lib.area(6, 7) == 42
 */
struct shape {
	long width, height, padding[3];
	long area() const { return width * height; }
};

extern "C" int area(int width, int height)
{
	shape *volatile s = new shape{width, height, {}};
	int result = s->area();

#ifndef BUG
	delete s;
#endif
	return result;
}
