/*
 * A structure is freed, but not what it points to.
 *
 * finds: leak: 1 block (6 bytes) lost: strdup in person_new
 *
 *     def test():
 *         lib.person_new.restype = c.c_void_p
 *         lib.person_free.argtypes = [c.c_void_p]
 *         person = lib.person_new(b"Alice", 30)
 *         lib.person_free(person)
 */
#include <stdlib.h>
#include <string.h>

struct person {
	long age, height, weight;
	char *name;
};

struct person *person_new(const char *name, int age)
{
	struct person *p = calloc(1, sizeof(*p));

	p->age = age;
	p->name = strdup(name);
	return p;
}

void person_free(struct person *p)
{
#ifndef BUG
	free(p->name);
#endif
	free(p);
}
