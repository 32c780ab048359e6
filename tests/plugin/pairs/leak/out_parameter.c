/*
 * The handle came back in a ctypes variable.
 *
 * finds: leak: 1 block (512 bytes) lost: malloc in table_create
 *
 *     def test():
 *         table = c.c_void_p()
 *         assert lib.table_create(c.byref(table)) == 0
 *         assert lib.table_destroy(table) == 0
 */
#include <stdlib.h>

int table_create(void **table)
{
	*table = malloc(512);
	return *table ? 0 : -1;
}

int table_destroy(void *table)
{
#ifndef BUG
	free(table);
#endif
	return 0;
}
