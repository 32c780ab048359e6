//! What fresh memory holds: nothing where it is given to others, and what it held where a library under test gets it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

mod common;

use common::{Loaded, build, session};

/// Fills a block, frees it, and takes it again: how many of its bytes are as they were left. (The allocator itself writes to the
/// first words of a block that is free.)
const SOURCE: &str = r"
#include <stdlib.h>
#include <string.h>
enum { SIZE = 3000 }; /* too large for the cache that realloc does not look into */
static void *volatile block;
static void litter(void) {
    block = malloc(SIZE);
    memset(block, 0xa5, SIZE);
    free(block);
}
static int count(const unsigned char *bytes, int from) {
    int found = 0;
    for (int at = from; at < SIZE; at++)
        found += bytes[at] == 0xa5;
    return found;
}
int old_of_malloc(void) {
    litter();
    block = malloc(SIZE);
    int found = count(block, 48);
    free(block);
    return found;
}
int old_of_aligned(void) {
    void *out = NULL;
    litter();
    if (posix_memalign(&out, 16, SIZE) != 0)
        return -1;
    int found = count(out, 48);
    free(out);
    return found;
}
/* -1: what was there is not kept. */
int old_of_realloc(void) {
    unsigned char *small = malloc(100);
    memset(small, 1, 100);
    void *volatile end = malloc(100); /* it cannot grow where it is */
    litter();
    unsigned char *grown = realloc(small, SIZE);
    int kept = 0;
    for (int at = 0; at < 100; at++)
        kept += grown[at] == 1;
    int found = kept == 100 ? count(grown, 160) : -1;
    free(grown);
    free(end);
    return found;
}
";

fn all(library: &Loaded) -> [i32; 3] {
    ["old_of_malloc", "old_of_aligned", "old_of_realloc"].map(|name| {
        let function: extern "C" fn() -> i32 = library.function(name);
        function()
    })
}

#[test]
fn only_others_get_clear_memory() {
    let other = build("fresh_other", SOURCE, &["-O0"]).load();
    let tested = build("fresh_tested", SOURCE, &["-O0"]).load();
    let before = all(&other);
    assert!(
        before.iter().all(|old| *old > 2000),
        "without a session it is full of old bytes: {before:?}"
    );
    let session = session(&[tested.name()]);
    assert_eq!(all(&other), [0; 3]);
    assert!(all(&tested).iter().all(|old| *old > 2000));
    session.stop().expect("stopped");
    assert!(all(&other).iter().all(|old| *old > 2000));
}
