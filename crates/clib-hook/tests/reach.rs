//! What is lost, and what someone still has. On the main thread, with nothing else running.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::mem_forget,
    clippy::too_many_lines,
    reason = "a test says what is wrong by failing"
)]

mod common;

use clib_hook::{
    Held, Session,
    reach::{Reach, Roots, reachability},
};
use common::{Loaded, build, session};

const SOURCE: &str = r"
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
struct node { struct node *next; char rest[40]; };
static void *global;
/* Results are inverted, so that the caller's registers and stack hold no pointer. */
unsigned long chain(void) {
    struct node *head = malloc(sizeof *head), *tail = malloc(sizeof *tail);
    head->next = (struct node *)(tail->rest + 8);
    tail->next = NULL;
    return ~(unsigned long)head;
}
unsigned long one(size_t size) { return ~(unsigned long)calloc(1, size); }
unsigned long map(void) {
    return ~(unsigned long)mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
void keep(unsigned long p) { global = (void *)~p; }
void forget(void) { global = NULL; }
void point(unsigned long from, unsigned long to) { *(void **)~from = (void *)~to; }
void drop(unsigned long p) { free((void *)~p); }
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t met;
static void *rest(void *inverted) {
    void *volatile p = (void *)~(unsigned long)inverted;
    pthread_barrier_wait(&met);
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    return p == NULL ? NULL : &gate;
}
static pthread_t thread;
void start(unsigned long p) {
    pthread_barrier_init(&met, NULL, 2);
    pthread_mutex_lock(&gate);
    pthread_create(&thread, NULL, rest, (void *)p);
    pthread_barrier_wait(&met);
}
void finish(void) { pthread_mutex_unlock(&gate); pthread_join(thread, NULL); }
";

/// Writes over what earlier calls left below the stack pointer.
#[inline(never)]
fn scrub() {
    let mut waste = [0_u8; 1 << 16];
    std::hint::black_box(&mut waste);
}

#[inline(always)]
fn how(held: Vec<Held>, roots: &Roots) -> Vec<Reach> {
    scrub();
    ask(held, roots)
}

#[inline(never)]
fn ask(mut held: Vec<Held>, roots: &Roots) -> Vec<Reach> {
    let reach = reachability(&held, roots).expect("a scan");
    // The freed list must not keep addresses for the next scan to find.
    held.iter_mut().for_each(|held| held.key = 0);
    std::hint::black_box(&mut held);
    reach
}

/// Pointers are made out of the test's sight, whose frame would keep them.
#[inline(never)]
fn with_value(inverted: usize) -> Roots {
    Roots {
        values: vec![!inverted + 4096],
        ..Roots::default()
    }
}

fn boxed(inverted: usize) -> Box<usize> {
    std::thread::spawn(move || Box::new(!inverted))
        .join()
        .expect("no panic")
}

/// Two arguments, passed in two registers.
#[repr(C)]
struct Pair(usize, usize);

struct Fixture {
    library: Loaded,
    session: Session,
}

impl Fixture {
    fn new() -> Self {
        let library = build("reach", SOURCE, &["-O0", "-pthread"]).load();
        let session = session(&[library.name()]);
        Self { library, session }
    }

    /// Calls a function on a thread of its own, whose registers and stack are then over.
    fn get<A: Send + 'static>(&self, name: &str, argument: A) -> usize {
        let function: extern "C" fn(A) -> usize = self.library.function(name);
        std::thread::spawn(move || function(argument))
            .join()
            .expect("no panic")
    }

    fn all(&self) -> Vec<Held> {
        let session = &self.session;
        std::thread::scope(|scope| {
            scope
                .spawn(|| session.held_since(clib_hook::session::Mark(0)))
                .join()
                .expect("no panic")
        })
    }

    fn drop_all(&self) {
        for held in self.all() {
            if held.function == "mmap" {
                // SAFETY: the mapping is this test's.
                unsafe { libc::munmap(held.key as *mut libc::c_void, held.size) };
            } else {
                self.get("drop", !held.key);
            }
        }
        self.session.disown(&self.all());
    }
}

#[inline(never)]
fn keep_second(fixture: &Fixture) {
    let mut held = fixture.all();
    fixture.get("keep", !(held[1].key + 5));
    held.iter_mut().for_each(|held| held.key = 0);
    std::hint::black_box(&mut held);
}

#[inline(never)]
fn tell_first(fixture: &Fixture) {
    let mut held = fixture.all();
    fixture.session.disown(&held[..1]);
    held.iter_mut().for_each(|held| held.key = 0);
    std::hint::black_box(&mut held);
}

fn globals_hold_and_chains_are_followed() {
    let fixture = Fixture::new();
    let head = fixture.get("chain", ());
    fixture.get("keep", head);
    assert_eq!(how(fixture.all(), &Roots::default()), [Reach::Reachable; 2]);
    fixture.get("forget", ());
    assert_eq!(
        how(fixture.all(), &Roots::default()),
        [Reach::Lost, Reach::IndirectlyLost]
    );
    // An interior pointer to the second holds that alone.
    keep_second(&fixture);
    assert_eq!(
        how(fixture.all(), &Roots::default()),
        [Reach::Lost, Reach::Reachable]
    );
    fixture.get("forget", ());
    fixture.drop_all();
}

fn what_was_told_holds_nothing() {
    let fixture = Fixture::new();
    let head = fixture.get("chain", ());
    assert_eq!(
        how(fixture.all(), &Roots::default()),
        [Reach::Lost, Reach::IndirectlyLost]
    );
    tell_first(&fixture);
    assert_eq!(
        how(fixture.all(), &Roots::default()),
        [Reach::Lost],
        "it is not told again, is no live memory because of that, and takes nothing with it"
    );
    fixture.get("drop", head);
    fixture.drop_all();
}

fn values_buffers_and_other_mappings_hold() {
    let fixture = Fixture::new();
    let block = fixture.get("one", 100_usize);
    let mapping = fixture.get("map", ());
    assert_eq!(how(fixture.all(), &Roots::default()), [Reach::Lost; 2]);
    fixture.get("point", Pair(mapping, block));
    assert_eq!(
        how(fixture.all(), &Roots::default()),
        [Reach::IndirectlyLost, Reach::Lost]
    );
    let mut roots = with_value(mapping);
    assert_eq!(how(fixture.all(), &roots), [Reach::Reachable; 2]);
    // As long as it is there, this list would hold the mapping itself.
    roots.values[0] = 0;
    drop(roots);
    let word = boxed(block);
    let place = (&raw const *word) as usize;
    assert_eq!(
        how(fixture.all(), &Roots::default())[0],
        Reach::Reachable,
        "a live block of the heap is a root"
    );
    let without = Roots {
        exclude: vec![(place, 8)],
        ..Roots::default()
    };
    assert_eq!(
        how(fixture.all(), &without)[0],
        Reach::IndirectlyLost,
        "unless it is excluded"
    );
    let buffer = Roots {
        buffers: vec![(place, 8)],
        ..without
    };
    assert_eq!(
        how(fixture.all(), &buffer)[0],
        Reach::Reachable,
        "buffers are scanned all the same"
    );
    drop(word);
    fixture.drop_all();
}

fn stacks_of_other_threads_hold() {
    let fixture = Fixture::new();
    let block = fixture.get("one", 24_usize);
    fixture.get("start", block);
    let held: Vec<_> = fixture
        .all()
        .into_iter()
        .filter(|held| held.function == "calloc")
        .collect();
    assert_eq!(how(held, &Roots::default()), [Reach::Reachable]);
    fixture.get("finish", ());
    fixture.drop_all();
}

fn main() {
    // No old bytes in fresh memory: chance must not hold what is lost.
    // SAFETY: a plain number; it is asked for before anything else runs.
    assert_eq!(unsafe { libc::mallopt(libc::M_PERTURB, 165) }, 1);
    globals_hold_and_chains_are_followed();
    what_was_told_holds_nothing();
    values_buffers_and_other_mappings_hold();
    stacks_of_other_threads_hold();
    println!("reachability: ok");
}
