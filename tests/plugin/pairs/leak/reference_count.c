/*
 * One reference too many is taken.
 *
 * finds: leak: 1 block (16 bytes) lost: malloc in object_new
 *
 *     def test():
 *         lib.object_new.restype = lib.object_share.restype = c.c_void_p
 *         lib.object_share.argtypes = lib.object_release.argtypes = [c.c_void_p]
 *         thing = lib.object_new()
 *         other = lib.object_share(thing)
 *         lib.object_release(other)
 *         lib.object_release(thing)
 */
#include <stdlib.h>

struct object {
	long references, value;
};

struct object *object_new(void)
{
	struct object *o = malloc(sizeof(*o));

	o->references = 1;
	return o;
}

struct object *object_share(struct object *o)
{
	o->references++;
#ifdef BUG
	o->references++;
#endif
	return o;
}

void object_release(struct object *o)
{
	if (--o->references == 0)
		free(o);
}
