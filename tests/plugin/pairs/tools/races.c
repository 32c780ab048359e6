/* Bugs of threads that helgrind finds, and with BAD=0 the same without the bug. */
#include <pthread.h>
#include <stddef.h>

static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t two = PTHREAD_MUTEX_INITIALIZER;

static void twice(void *(*first)(void *), void *(*second)(void *)) {
    pthread_t threads[2];
    pthread_create(&threads[0], NULL, first, NULL);
    pthread_create(&threads[1], NULL, second, NULL);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
}

static int counter;
static void *count(void *unused) {
    for (int i = 0; i < 100; i++) {
        if (!BAD)
            pthread_mutex_lock(&one);
        counter++;
        if (!BAD)
            pthread_mutex_unlock(&one);
    }
    return unused;
}

void race_on_counter(void) {
    twice(count, count);
}

static int flag, value;
static void *publish(void *unused) {
    value = 7;
    if (!BAD)
        pthread_mutex_lock(&one);
    flag = 1;
    if (!BAD)
        pthread_mutex_unlock(&one);
    return unused;
}

static void *look(void *unused) {
    if (!BAD)
        pthread_mutex_lock(&one);
    int seen = flag;
    if (!BAD)
        pthread_mutex_unlock(&one);
    return seen ? NULL : unused;
}

void race_on_flag(void) {
    twice(publish, look);
}

static void lock_both(pthread_mutex_t *first, pthread_mutex_t *second) {
    pthread_mutex_lock(first);
    pthread_mutex_lock(second);
    pthread_mutex_unlock(second);
    pthread_mutex_unlock(first);
}

void lock_order(void) {
    lock_both(&one, &two);
    if (BAD)
        lock_both(&two, &one);
    else
        lock_both(&one, &two);
}

void unlock_unlocked(void) {
    pthread_mutex_t mine = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mine);
    pthread_mutex_unlock(&mine);
    if (BAD)
        pthread_mutex_unlock(&mine);
    pthread_mutex_destroy(&mine);
}
