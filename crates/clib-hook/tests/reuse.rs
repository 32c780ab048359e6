//! What a test released has an address that the next one is not given.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

mod common;

use std::sync::{Mutex, PoisonError};

use common::{Loaded, build, build_with, session};

/// Addresses are inverted: they are compared only.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <malloc.h>

static char text[100] = "a text, and as long as the other blocks; nobody looks at what is in it, or where it ends.....";
static void *block;
static void *aligned(void) {
    void *made = NULL;
    return posix_memalign(&made, 64, 4096) == 0 ? made : NULL;
}
unsigned long give(int how) {
    switch (how) {
    case 0: block = malloc(1500); break;
    case 1: block = calloc(2, 2000); break;
    case 2: block = aligned(); break;
    case 3: block = memalign(64, 4096); break;
    case 4: block = aligned_alloc(64, 4096); break;
    case 5: block = strdup(text); break;
    case 6: block = strndup(text, 90); break;
    case 7: block = realloc(NULL, 96); break;
    }
    return ~(unsigned long)block;
}
void take(void) { free(block); block = NULL; }
/* Not where it is: something else comes after it. */
void grow(void) { void *volatile next = malloc(1500); block = realloc(block, 100000); free(next); }
int is_text(void) { return memcmp(block, text, 90) == 0; }
unsigned long room(void) { struct mallinfo2 info = mallinfo2(); return info.uordblks; }
/* So many blocks of so many bytes, one after the other or at once. */
void churn(int count, unsigned long bytes, int at_once) {
    void **blocks = calloc(count, sizeof *blocks);
    for (int i = 0; i < count; i++) {
        blocks[i] = malloc(bytes);
        if (!at_once) free(blocks[i]);
    }
    for (int i = 0; at_once && i < count; i++) free(blocks[i]);
    free(blocks);
}
"#;

const OPERATORS: &str = r#"
#include <cstddef>
#include <new>
struct alignas(64) Wide { char bytes[4096]; };
struct Plain { char bytes[96]; };
static void *block;
static int how;
extern "C" unsigned long give(int which) {
    how = which;
    switch (how) {
    case 0: block = new Plain; break;
    case 1: block = new Plain[3]; break;
    case 2: block = new (std::nothrow) Plain; break;
    case 3: block = new Wide; break;
    }
    return ~(unsigned long)block;
}
extern "C" void take(void) {
    switch (how) {
    case 1: delete[] (Plain *)block; break;
    case 3: delete (Wide *)block; break;
    default: delete (Plain *)block;
    }
}
"#;

/// There is one session in a process.
static ONE: Mutex<()> = Mutex::new(());

type Give = extern "C" fn(i32) -> usize;
type Take = extern "C" fn();

fn addresses(library: &Loaded, how: i32) -> usize {
    let give: Give = library.function("give");
    let take: Take = library.function("take");
    let address = give(how);
    take();
    address
}

#[test]
fn an_address_comes_again_in_the_same_test_only() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let tested = build("reuse_tested", SOURCE, &["-O0"]).load();
    let other = build("reuse_other", SOURCE, &["-O0"]).load();
    let again = |library, how| addresses(library, how) == addresses(library, how);
    let session = session(&[tested.name()]);
    session.set_test(1);
    for how in 0..8 {
        let first = addresses(&tested, how);
        if how == 0 {
            assert_eq!(
                addresses(&tested, how),
                first,
                "the same test gets it again"
            );
        }
        session.set_test(2 + how.cast_unsigned());
        assert_ne!(addresses(&tested, how), first, "{how}");
        if how == 0 {
            assert!(again(&other, how), "other objects get it in any test");
        }
    }
    let is_text: extern "C" fn() -> i32 = tested.function("is_text");
    let give: Give = tested.function("give");
    session.set_test(20);
    give(5);
    assert_eq!(is_text(), 1, "another block has the same in it");
    session.stop().expect("stopped");
    assert!(again(&tested, 0));
}

#[test]
fn operators_of_c_plus_plus() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let tested = build_with("g++", "cc", "reuse_new", OPERATORS, &["-std=c++17"]).load();
    let session = session(&[tested.name()]);
    for how in 0..4_i32 {
        session.set_test(1 + 2 * how.cast_unsigned());
        let first = addresses(&tested, how);
        session.set_test(2 + 2 * how.cast_unsigned());
        assert_ne!(addresses(&tested, how), first, "{how}");
    }
}

#[test]
fn a_block_that_moved_has_released_its_address() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let tested = build("reuse_moved", SOURCE, &["-O0"]).load();
    let give: Give = tested.function("give");
    let take: Take = tested.function("take");
    let grow: Take = tested.function("grow");
    let session = session(&[tested.name()]);
    session.set_test(1);
    let first = give(0);
    grow();
    take();
    session.set_test(2);
    assert_ne!(addresses(&tested, 0), first);
    let stays = give(0);
    session.set_test(3);
    assert_ne!(give(0), stays);
}

#[test]
fn what_is_set_aside_is_bounded_and_goes_back() {
    const MIB: usize = 1 << 20;
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let tested = build("reuse_bounded", SOURCE, &["-O0"]).load();
    let churn: extern "C" fn(i32, usize, i32) = tested.function("churn");
    let room: extern "C" fn() -> usize = tested.function("room");
    let session = session(&[tested.name()]);
    let before = room();
    let mut most = 0;
    for test in 1..40 {
        session.set_test(test);
        churn(300, 1000, 1);
        churn(30_000, 24, 1);
        churn(3, 100_000, 1);
        most = most.max(room().saturating_sub(before));
    }
    assert!(
        (7 * MIB..10 * MIB).contains(&most),
        "{most} bytes were in use at the most"
    );
    let full = room();
    churn(1_000_000, 48, 0);
    assert!(room() <= full + MIB, "a loop needs one block");
    session.stop().expect("stopped");
    let left = room().saturating_sub(before);
    assert!(left < MIB, "{left} bytes were not given back");
}

const OWN: &str = r#"
#include <stddef.h>
static char room[1 << 16];
static char *last;
/* What was released last comes again. */
void *malloc(size_t size) {
    static size_t used;
    if (last) { char *again = last; last = NULL; return again; }
    used += 4096;
    return room + used - 4096;
}
void free(void *block) { last = block; }
"#;
const USER: &str = r"
#include <stdlib.h>
static void *block;
unsigned long give(int how) { (void)how; return ~(unsigned long)(block = malloc(100)); }
void take(void) { free(block); }
";

#[test]
fn blocks_of_another_allocator_are_left_alone() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let own = build("reuse_own", OWN, &["-fno-builtin"]);
    let path = own.path.to_str().expect("UTF-8").to_owned();
    let user = build("reuse_user", USER, &["-Wl,--no-as-needed", &path])
        .load_as(libc::RTLD_NOW | libc::RTLD_DEEPBIND);
    let session = session(&[user.name()]);
    session.set_test(1);
    let first = addresses(&user, 0);
    session.set_test(2);
    assert_eq!(addresses(&user, 0), first);
    session.stop().expect("stopped");
}
