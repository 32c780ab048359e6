//! What stood in the heap before something was acquired does not hold it; what came later does.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what is wrong by failing"
)]

mod common;

use clib_hook::{
    Session,
    reach::{Reach, Roots, before, reachability},
};
use common::{Loaded, build, session};

/// The allocator gives the block that was freed last, so `one` gives the same address after `drop`. All addresses are inverted, so that
/// the test's own variables hold nothing.
const SOURCE: &str = r"
#include <stdlib.h>
unsigned long one(size_t size) { return ~(unsigned long)malloc(size); }
void drop(unsigned long inverted) { free((void *)~inverted); }
";

struct Fixture {
    library: Loaded,
    session: Session,
}

impl Fixture {
    #[inline(never)]
    fn one(&self) -> usize {
        let one: extern "C" fn(usize) -> usize = self.library.function("one");
        let inverted = one(900);
        scrub();
        inverted
    }

    #[inline(never)]
    fn drop(&self, inverted: usize) {
        let drop: extern "C" fn(usize) = self.library.function("drop");
        drop(inverted);
        scrub();
    }

    /// How the only thing that is held can be reached.
    #[inline(never)]
    fn how(&self) -> Reach {
        scrub();
        let held = self.session.held_since(clib_hook::session::Mark(0));
        assert_eq!(held.len(), 1);
        reachability(&held, &Roots::default()).expect("a scan")[0]
    }
}

/// A word of the heap that holds an address.
#[inline(never)]
fn boxed(inverted: usize) -> Box<[usize; 100]> {
    let mut word = Box::new([0; 100]);
    word[70] = !inverted;
    word
}

/// Writes over what earlier calls left below the stack pointer.
#[inline(never)]
fn scrub() {
    let mut waste = [0_u8; 1 << 16];
    std::hint::black_box(&mut waste);
}

fn an_old_word_holds_nothing(fixture: &Fixture) {
    let block = fixture.one();
    fixture.drop(block);
    let old = boxed(block);
    assert_eq!(fixture.one(), block, "the same place");
    assert_eq!(
        fixture.how(),
        Reach::Reachable,
        "nobody knows that it is old"
    );
    fixture.drop(block);
    before::remember().expect("memory");
    assert_eq!(fixture.one(), block, "the same place");
    assert_eq!(fixture.how(), Reach::Lost);
    let kept = boxed(block);
    assert_eq!(fixture.how(), Reach::Reachable, "a new word does hold");
    drop((kept, old));
    fixture.drop(block);
}

fn a_word_that_led_to_something_holds_what_comes_there_next(fixture: &Fixture) {
    let block = fixture.one();
    let kept = boxed(block);
    before::remember().expect("memory");
    fixture.drop(block);
    assert_eq!(fixture.one(), block, "the same place");
    assert_eq!(fixture.how(), Reach::Reachable);
    drop(kept);
    fixture.drop(block);
}

fn a_word_in_memory_that_was_free_may_come_again(fixture: &Fixture) {
    let block = fixture.one();
    fixture.drop(block);
    let kept = boxed(block);
    let place = !(kept.as_ptr() as usize);
    drop(kept);
    before::remember().expect("memory");
    assert_eq!(fixture.one(), block, "the same place");
    let kept = boxed(block);
    assert_eq!(!(kept.as_ptr() as usize), place, "the same place");
    assert_eq!(fixture.how(), Reach::Reachable);
    drop(kept);
    fixture.drop(block);
}

fn main() {
    let library = build("before", SOURCE, &["-O0"]).load();
    let session = session(&[library.name()]);
    let fixture = Fixture { library, session };
    an_old_word_holds_nothing(&fixture);
    a_word_that_led_to_something_holds_what_comes_there_next(&fixture);
    a_word_in_memory_that_was_free_may_come_again(&fixture);
    println!("what was there before: ok");
}
