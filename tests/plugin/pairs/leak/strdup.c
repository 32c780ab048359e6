/*
 * A duplicate is made to be changed, and forgotten.
 *
 * finds: leak: 1 block (6 bytes) lost: strdup in is_palindrome
 *
 *     def test():
 *         assert lib.is_palindrome(b"level") == 1
 */
#include <stdlib.h>
#include <string.h>

int is_palindrome(const char *word)
{
	char *reversed = strdup(word);
	size_t n = strlen(word);
	int same;

	for (size_t i = 0; i < n; i++)
		reversed[i] = word[n - 1 - i];
	same = !strcmp(word, reversed);
#ifndef BUG
	free(reversed);
#endif
	return same;
}
