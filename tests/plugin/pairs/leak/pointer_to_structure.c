/*
 * The handle was a ctypes pointer, in an object with a reference cycle.
 *
 * finds: leak: 1 block (24 bytes) lost: malloc in vector_new
 *
 *     class Vector(c.Structure):
 *         _fields_ = [("x", c.c_double), ("y", c.c_double), ("z", c.c_double)]
 *
 *     class Owner:
 *         def __init__(self):
 *             lib.vector_new.restype = c.POINTER(Vector)
 *             self.vector = lib.vector_new()
 *             self.me = self
 *
 *     def test():
 *         owner = Owner()
 *         owner.vector.contents.x = 1.0
 *         lib.vector_free(owner.vector)
 */
#include <stdlib.h>

struct vector {
	double x, y, z;
};

struct vector *vector_new(void)
{
	return malloc(sizeof(struct vector));
}

void vector_free(struct vector *v)
{
#ifndef BUG
	free(v);
#endif
}
