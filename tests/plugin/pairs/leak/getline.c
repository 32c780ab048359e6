/*
 * getline allocates its line, also at the end of the file.
 *
 * finds: leak: lost: getline in lines
 *
 *     def test(tmp_path):
 *         (tmp_path / "file").write_text("one\ntwo\n")
 *         assert lib.lines(str(tmp_path / "file").encode()) == 2
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>

int lines(const char *path)
{
	FILE *file = fopen(path, "r");
	char *line = NULL;
	size_t room = 0;
	int count = 0;

	while (getline(&line, &room, file) >= 0)
		count++;
#ifndef BUG
	free(line);
#endif
	fclose(file);
	return count;
}
