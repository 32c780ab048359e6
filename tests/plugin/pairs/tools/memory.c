/* Bugs that memcheck, ASAN or UBSan find, and with BAD=0 the same without the bug. */
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

volatile int sink;
static volatile int ten = 10;

void uninitialised_branch(void) {
    int *value = BAD ? malloc(sizeof *value) : calloc(1, sizeof *value);
    if (*value > 3)
        sink = 1;
    free(value);
}

void uninitialised_array(void) {
    int many[8];
    for (int i = 0; i < 8 - BAD; i++)
        many[i] = i;
    for (int i = 0; i < 8; i++)
        if (many[i] == 5)
            sink = i;
}

void uninitialised_write(void) {
    char *text = malloc(16);
    memset(text, 'x', BAD ? 15 : 16);
    int file = open("/dev/null", O_WRONLY);
    sink = (int)write(file, text, 16);
    close(file);
    free(text);
}

void heap_overflow_read(void) {
    char *block = calloc(10, 1);
    sink = block[ten - !BAD];
    free(block);
}

void heap_overflow_write(void) {
    char *block = malloc(10);
    block[ten - !BAD] = 1;
    free(block);
}

void heap_underflow(void) {
    char *block = calloc(10, 1);
    sink = block[-BAD];
    free(block);
}

void memset_overflow(void) {
    char *block = malloc(10);
    memset(block, 0, ten + BAD);
    free(block);
}

void string_overflow(void) {
    char *block = malloc(10 + !BAD);
    char text[] = "0123456789";
    volatile char *from = text;
    strcpy(block, (char *)from);
    free(block);
}

void use_after_free_read(void) {
    int *block = calloc(4, sizeof *block);
    if (BAD)
        free(block);
    sink = block[1];
    if (!BAD)
        free(block);
}

void use_after_free_write(void) {
    int *volatile block = calloc(4, sizeof *block);
    if (BAD)
        free(block);
    block[1] = 1;
    if (!BAD)
        free(block);
}

void use_after_realloc(void) {
    char *before = calloc(16, 1);
    char *volatile old = before;
    char *after = realloc(before, 1 << 16);
    sink = BAD ? old[3] : after[3];
    free(after);
}

void invalid_free_inner(void) {
    char *volatile block = malloc(32);
    free(block + (BAD ? 16 : 0));
    if (BAD)
        free(block);
}

void double_free(void) {
    char *volatile block = malloc(32);
    free(block);
    if (BAD)
        free(block);
}

void unaddressable_syscall(void) {
    char *block = calloc(8, 1);
    int file = open("/dev/null", O_WRONLY);
    sink = (int)write(file, block, BAD ? 12 : 8);
    close(file);
    free(block);
}

void overlap(void) {
    char block[32] = "0123456789abcdef";
    volatile size_t length = 8;
    if (BAD)
        memcpy(block + 4, block, length);
    else
        memcpy(block + 16, block, length);
    sink = block[5];
}

void stack_overflow_read(void) {
    char block[10] = {0};
    char *volatile start = block;
    sink = start[ten - !BAD];
}

void stack_overflow_write(void) {
    char block[10];
    char *volatile start = block;
    start[ten - !BAD] = 1;
}

void stack_after_scope(void) {
    int *volatile kept;
    int outer = 1;
    {
        int inner = 2;
        kept = BAD ? &inner : &outer;
    }
    sink = *kept;
}

static int *volatile returned;
static int still = 1;
static void return_local(void) {
    int local = 1;
    returned = BAD ? &local : &still;
}

void stack_after_return(void) {
    return_local();
    sink = *returned;
}

static char table[10];
void global_overflow(void) {
    char *volatile start = table;
    sink = start[ten + 2 - 3 * !BAD];
}

static int numbers[4] = {1, 2, 3, 4};
void global_underflow(void) {
    int *volatile start = numbers;
    sink = start[-BAD];
}

void integer_overflow(void) {
    volatile int large = BAD ? INT_MAX : 1;
    sink = large + 1;
}

void shift_too_far(void) {
    volatile int by = BAD ? 40 : 4;
    sink = 1 << by;
}

struct pair {
    int first, second;
};
void null_member(void) {
    static struct pair one;
    struct pair *volatile pair = BAD ? NULL : &one;
    sink = &pair->second != NULL;
}

void misaligned(void) {
    static _Alignas(8) char bytes[16];
    int *volatile value = (int *)(bytes + BAD);
    sink = *value;
}

void index_out_of_bounds(void) {
    struct {
        int few[4];
        int after[4];
    } both = {{0}, {0}};
    volatile int index = 4 - !BAD;
    sink = both.few[index];
}

void bad_bool(void) {
    unsigned char byte = BAD ? 7 : 1;
    bool value;
    memcpy(&value, &byte, 1);
    bool *volatile place = &value;
    sink = *place ? 1 : 0;
}
