//! The recorder of kernel calls, against what `tests/programs/calls.c` says that it called.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use faultline::probe::Filter;
use faultline::probe::abi::call::{fl_call, fl_call_state, fl_fetch, fl_fetch_flag, fl_fetch_kind, fl_function_flag};
use faultline::probe::call::{Attach, Attached, Function, How, Plan, Point, Recorder, Task};

use crate::harness::programs;

/// The program, which does as it is told.
struct Calls {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Calls {
    fn start() -> Self {
        let mut child =
            Command::new(programs().join("calls")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut calls = Self { child, to, from };
        // Once around: from here on only what it is told.
        calls.tell("nothing");
        calls
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it do something, and returns what it says of it.
    fn tell(&mut self, what: &str) -> BTreeMap<String, i64> {
        writeln!(self.to, "{what}").unwrap();
        let mut said = BTreeMap::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.from.read_line(&mut line).unwrap(), 0, "it ended: {said:?}");
            match line.trim().split_once(' ') {
                None => return said,
                Some((name, value)) => said.insert(name.to_owned(), value.parse().unwrap()),
            };
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn value(argument: u8) -> fl_fetch {
    fl_fetch { argument, size: 8, ..fl_fetch::default() }
}

/// A system call with so many arguments, seen by its tracepoints.
fn syscall(name: &str, parameters: u8) -> Function {
    let fetches: Vec<fl_fetch> = (0..parameters).map(value).collect();
    let flags = fl_function_flag::FL_FUNCTION_HAS_RESULT.0;
    let point = Point { symbol: name.to_owned(), btf_id: None, parameters, flags, anyone: None, fetches };
    Function { kernel: None, syscall: Some(point), trigger: None }
}

fn plan(pid: u32, functions: Vec<Function>, attach: Attach) -> Plan {
    Plan {
        filter: Filter { pids: vec![pid], ..Filter::default() },
        functions,
        calls: 16,
        tasks: 64,
        kernel_stacks: false,
        live: None,
        trigger_signals: Vec::new(),
        attach,
        btf: None,
        verbose: false,
    }
}

#[test]
fn arguments_and_results_are_those_of_the_call() {
    let mut calls = Calls::start();
    let functions = vec![syscall("mprotect", 3), syscall("munmap", 2), syscall("mmap", 6)];
    let (recorder, attached) = Recorder::start(&plan(calls.pid(), functions, Attach::Tracepoint)).unwrap();
    println!("{attached:?}");
    let said = calls.tell("memory");
    let task = recorder.task(calls.pid()).unwrap().expect("it has made calls");
    let address = said["address"] as u64;
    for call in &task.calls {
        println!("{} {:?} {:x?} {} {}ns", call.function, call.state, &call.values[..6], call.result, call.duration_ns);
    }
    println!("{:?} {address:x}", recorder.counters());
}
