/*
 * A hash table grows, and its old buckets are forgotten.
 *
 * finds: leak: 1 block (64 bytes) lost: calloc in buckets_new
 *
 *     def test():
 *         lib.map_new.restype = c.c_void_p
 *         lib.map_put.argtypes = [c.c_void_p, c.c_int]
 *         lib.map_free.argtypes = [c.c_void_p]
 *         table = lib.map_new()
 *         for key in range(12):
 *             lib.map_put(table, key)
 *         lib.map_free(table)
 */
#include <stdlib.h>

struct map {
	size_t size, used;
	long *buckets;
};

static long *__attribute__((noinline)) buckets_new(size_t size)
{
	return calloc(size, sizeof(long));
}

struct map *map_new(void)
{
	struct map *m = malloc(sizeof(*m));

	m->size = 8;
	m->used = 0;
	m->buckets = buckets_new(m->size);
	return m;
}

void map_put(struct map *m, int key)
{
	if (m->used == m->size) {
		long *old = m->buckets, *fresh = buckets_new(2 * m->size);

		for (size_t i = 0; i < m->size; i++)
			fresh[i] = old[i];
		m->buckets = fresh;
		m->size *= 2;
#ifndef BUG
		free(old);
#endif
	}
	m->buckets[m->used++] = key;
}

void map_free(struct map *m)
{
	free(m->buckets);
	free(m);
}
