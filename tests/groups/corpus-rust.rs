//! Bugs in Rust, each with its label. See corpus.h for the arguments and the ways.
//!
//! bug: unwrap-name
//! bug: unwrap-size
//! bug: index-rows
//! bug: index-slice
//! bug: borrow-twice
//! bug: expect-number
//! bug: overflow-map         in a closure that an iterator calls
//! bug: raw-null             unsafe
//! bug: trait-panic          in a trait's method
//! bug: exit-abort           process::abort
//! bug: thread-panic
#![allow(clippy::all)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};

static SINK: AtomicI64 = AtomicI64::new(0);

fn sink(value: i64) {
    SINK.fetch_add(value, Ordering::Relaxed);
}

extern "C" {
    fn prctl(option: i32, name: *const u8, ...) -> i32;
    fn setrlimit(resource: i32, limits: *const [u64; 2]) -> i32;
}

struct Names {
    known: HashMap<String, i64>,
}

impl Names {
    fn number(&self, name: &str) -> i64 {
        *self.known.get(name).unwrap()
    }

    fn size(&self) -> i64 {
        self.known.values().copied().filter(|value| *value > 1000).max().unwrap()
    }
}

fn names(path: i64) -> Names {
    Names { known: (0..=path).map(|n| (n.to_string(), n)).collect() }
}

fn look_up(path: i64) {
    let names = names(path);
    sink(names.number("0") + names.number("x"));
}

fn measure(path: i64) {
    let names = names(path);
    sink(names.size() + 1);
}

struct Grid {
    rows: Vec<Vec<i64>>,
}

impl Grid {
    fn cell(&self, row: usize, column: usize) -> i64 {
        self.rows[row][column]
    }
}

fn grid_sum(path: i64) {
    let grid = Grid { rows: vec![vec![1; 4]; path as usize + 1] };
    let mut sum = 0;
    for row in 0..=path as usize + 1 {
        sum += grid.cell(row, row % 4);
    }
    sink(sum);
}

fn header(text: &str, length: usize) -> &str {
    &text[..length]
}

fn message(path: i64) {
    let text = format!("GET {path}");
    sink(header(&text, text.len() + path as usize + 1).len() as i64);
}

struct Cache {
    entries: RefCell<Vec<i64>>,
}

impl Cache {
    fn each(&self, call: &dyn Fn(i64)) {
        for entry in self.entries.borrow().iter() {
            call(*entry);
        }
    }

    fn add(&self, value: i64) {
        self.entries.borrow_mut().push(value);
    }
}

fn cache_fill(path: i64) {
    let cache = Cache { entries: RefCell::new(vec![path; 3]) };
    cache.each(&|entry| cache.add(entry + 1));
    sink(cache.entries.borrow().len() as i64);
}

fn number(text: &str) -> i64 {
    text.parse::<i64>().expect("a number")
}

fn numbers(path: i64) {
    let all = format!("1,2,{path},x");
    let sum: i64 = all.split(',').map(number).sum();
    sink(sum);
}

fn scale(values: &[i32], by: i32) -> Vec<i32> {
    values.iter().map(|value| value.checked_mul(by).expect("too large")).collect()
}

fn scaled(path: i64) {
    let values = vec![i32::MAX / 2; path as usize + 1];
    sink(scale(&values, 4 + path as i32).len() as i64);
}

struct Raw {
    at: *const [i64; 4],
}

impl Raw {
    fn read(&self, index: usize) -> i64 {
        unsafe { std::ptr::read_volatile((self.at as *const i64).add(index)) }
    }
}

fn raw(path: i64) {
    let raw = Raw { at: if path > 1000 { &[1; 4] } else { std::ptr::null() } };
    sink(raw.read(path as usize % 4) + 1);
}

trait Shape {
    fn area(&self) -> i64;
}

struct Square(i64);
struct Hole;

impl Shape for Square {
    fn area(&self) -> i64 {
        self.0 * self.0
    }
}

impl Shape for Hole {
    fn area(&self) -> i64 {
        panic!("a hole has no area")
    }
}

fn shapes(path: i64) {
    let mut all: Vec<Box<dyn Shape>> = (0..path % 5).map(|side| Box::new(Square(side)) as Box<dyn Shape>).collect();
    all.push(Box::new(Hole));
    sink(all.iter().map(|shape| shape.area()).sum());
}

fn give_up(code: i64) -> i64 {
    if code < 1000 {
        eprintln!("giving up: {code}");
        std::process::abort();
    }
    code
}

fn leave(path: i64) {
    sink(give_up(path) + 1);
}

fn work(jobs: &[i64]) -> i64 {
    let first = jobs.first().copied().unwrap_or_default();
    assert!(first > 1000, "no job");
    first
}

fn pool(path: i64) {
    let threads: Vec<_> = (0..path % 3 + 1).map(|_| std::thread::spawn(move || work(&[path]))).collect();
    for thread in threads {
        sink(thread.join().unwrap_or_default());
    }
}

const JOBS: &[(&str, fn(i64))] = &[
    ("unwrap-name", look_up),
    ("unwrap-size", measure),
    ("index-rows", grid_sum),
    ("index-slice", message),
    ("borrow-twice", cache_fill),
    ("expect-number", numbers),
    ("overflow-map", scaled),
    ("raw-null", raw),
    ("trait-panic", shapes),
    ("exit-abort", leave),
    ("thread-panic", pool),
];

/// What every way leads to, as in any program that looks up what to do.
fn perform(job: fn(i64), path: i64) {
    job(path);
    sink(1);
}

fn descend(job: fn(i64), path: i64, depth: i64) {
    if depth == 0 { perform(job, path) } else { descend(job, path, depth - 1) }
    sink(depth);
}

fn run_queue(queue: Vec<Box<dyn FnOnce()>>) {
    for task in queue {
        task();
        sink(1);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let job = JOBS.iter().find(|(name, _)| arguments.get(1).is_some_and(|wanted| wanted == name));
    let (Some((name, job)), Some(path)) = (job, arguments.get(2).and_then(|path| path.parse::<i64>().ok())) else {
        eprintln!("usage: corpus-rust BUG PATH");
        std::process::exit(2);
    };
    let name = format!("{name}\0");
    unsafe {
        prctl(15, name.as_ptr());
        setrlimit(4, &[0, 0]);
    }
    let job = *job;
    match path % 4 {
        0 => perform(job, path),
        1 => run_queue(vec![Box::new(move || perform(job, path))]),
        2 => drop(std::thread::spawn(move || perform(job, path)).join()),
        _ => descend(job, path, path),
    }
}
