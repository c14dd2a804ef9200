//! `runtime_message`: what the runtimes of Go, Rust and C++ said before they ended a program, held against what the program printed; and
//! programs that look like it and whose runtime said nothing. Also the message of libc right after the start.

use std::process::{Command, Stdio};

use macro_rules_attribute::apply;
use serde_json::{Value, json};

use crate::built::{Program, run};
use crate::harness::runs::watch_test;
use crate::harness::{Scratch, named, programs};
use crate::hidden::Watch;

/// The only record of a run that dies, or was caught and then dies.
fn message(folder: &Scratch, command: &str) -> Value {
    let run = run(folder, command);
    assert_eq!(run.crashes.len(), 1, "{command}: {:#?} {}", run.crashes, run.losses);
    run.crashes[0]["runtime_message"].clone()
}

/// Each argument of a program with what its runtime says; the empty text: nothing.
fn compare(folder: &Scratch, command: &str, runtime: &str, table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|(argument, text)| {
            let expected = if text.is_empty() { Value::Null } else { json!({ "runtime": runtime, "text": text }) };
            let found = message(folder, &format!("{command} {argument}"));
            (found != expected).then(|| format!("{command} {argument}: {found} is not {expected}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

pub(crate) const RUST: Program = Program {
    folder: "rust-panics",
    file: "panics.rs",
    source: r#"#[inline(never)] fn at(values: &[i32], index: usize) -> i32 { values[index] }
    #[inline(never)] extern "C" fn borders(index: usize) -> i32 { at(&[1, 2, 3], index) }
    struct Item(i32);
    impl Drop for Item { fn drop(&mut self) { if self.0 == 7 { std::process::abort() } } }
    fn main() {
        let all: Vec<String> = std::env::args().collect();
        let text = &all[2..].join(" ");
        match all[1].as_str() {
            "index" => println!("{}", at(&[1, 2, 3], 7)),
            "literal" => panic!("a literal"),
            "format" => panic!("{text} and {}", all.len()),
            "unwrap" => { Err::<i32, String>("broken".to_owned()).unwrap(); }
            "none" => { None::<i32>.unwrap(); }
            "expect" => { "x".parse::<i32>().expect("no number"); }
            "divide" => println!("{}", 1 / (all.len() - 2)),
            "assert" => assert_eq!(all.len(), 3, "lengths"),
            "utf8" => panic!("größer als {}", 7),
            "refcell" => { let cell = std::cell::RefCell::new(1); let _one = cell.borrow_mut(); let _two = cell.borrow_mut(); }
            "thread" => { std::thread::spawn(|| panic!("in a thread")).join().unwrap(); }
            "hook" => { std::panic::set_hook(Box::new(|_| ())); panic!("told nobody"); }
            "number" => std::panic::panic_any(7),
            "abort" => std::process::abort(),
            "allocate" => { let mut all = Vec::<u8>::with_capacity(all.len() << 46); all.push(1); println!("{all:?}"); }
            "caught" => { let _ = std::panic::catch_unwind(|| panic!("of before")); std::process::abort(); }
            "drop" => drop(Item(7)),
            _ => println!("{}", borders(7)),
        }
    }"#,
    command: "rustc -A warnings -C panic=abort panics.rs && rustc -A warnings -O -C panic=abort -o fast panics.rs && \
              rustc -A warnings -g -o unwinding panics.rs",
};

#[apply(watch_test!)]
fn rust_has_the_message_of_its_panic() {
    let folder = RUST.folder();
    let table = [
        ("index", "index out of bounds: the len is 3 but the index is 7"),
        ("literal", "a literal"),
        ("format some text", "some text and 4"),
        ("unwrap", r#"called `Result::unwrap()` on an `Err` value: "broken""#),
        ("none", "called `Option::unwrap()` on a `None` value"),
        ("expect", "no number: ParseIntError { kind: InvalidDigit }"),
        ("divide", "attempt to divide by zero"),
        ("assert", "assertion `left == right` failed: lengths\n  left: 2\n right: 3"),
        ("utf8", "größer als 7"),
        ("thread", "in a thread"),
        ("hook", "told nobody"),
        // The look-alikes: no text, no panic, one that was caught before, and another process's argument in the stack.
        ("number", ""),
        ("abort", ""),
        ("drop looks like a message", ""),
    ];
    compare(&folder, "./panics", "rust", &table);
    compare(&folder, "./fast", "rust", &table);
    compare(&folder, "./unwinding", "rust", &[("caught", ""), ("borders", "panic in a function that cannot unwind")]);
}

const CXX: Program = Program {
    folder: "cxx-exceptions",
    file: "thrown.cc",
    source: r#"#include <cstdlib>
    #include <cstring>
    #include <exception>
    #include <filesystem>
    #include <functional>
    #include <memory>
    #include <new>
    #include <optional>
    #include <stdexcept>
    #include <string>
    #include <system_error>
    #include <thread>
    #include <variant>
    #include <vector>
    struct Plain : std::exception { const char *what() const noexcept override { return "a plain one"; } };
    struct Member : std::exception {
        std::string text;
        explicit Member(std::string text) : text(std::move(text)) {}
        const char *what() const noexcept override { return text.c_str(); }
    };
    struct Numbered : std::exception {
        long number = 7; const char *text;
        explicit Numbered(const char *text) : text(text) {}
        const char *what() const noexcept override { return text; }
    };
    struct Derived : std::runtime_error { using std::runtime_error::runtime_error; int more = 3; };
    struct Far : Derived { using Derived::Derived; };
    struct Other { virtual ~Other() {} virtual void none() {} const char *text = "no exception at all"; };
    struct Hidden : std::runtime_error {
        mutable int calls = 0;
        using std::runtime_error::runtime_error;
        const char *what() const noexcept override { calls++; return "it writes"; }
    };
    struct Private : private std::runtime_error { using std::runtime_error::runtime_error; };
    struct Base { virtual ~Base() {} long one = 1; };
    struct Second : Base, Derived { using Derived::Derived; };
    struct Virtual : virtual std::exception { const char *what() const noexcept override { return "virtually"; } };
    struct Diamond : Base, Virtual { };
    struct Inner : std::exception {
        double before[9] = {}; std::runtime_error error;
        explicit Inner(const std::string &text) : error(text) {}
        const char *what() const noexcept override { return error.what(); }
    };
    struct Buffer : std::exception {
        int before[100] = {}; char text[32];
        Buffer() { strcpy(text, "in a buffer"); }
        const char *what() const noexcept override { return text; }
    };
    struct Chooses : std::exception {
        int number; explicit Chooses(int number) : number(number) {}
        const char *what() const noexcept override {
            switch (number) {
            case 2: return "the second";
            case 3: return "the third";
            case 4: return "the fourth";
            default: return number < 0 ? "a negative one" : "another one";
            }
        }
    };
    struct Shared : std::exception {
        std::shared_ptr<std::string> text;
        explicit Shared(const std::string &text) : text(std::make_shared<std::string>(text)) {}
        const char *what() const noexcept override { return text ? text->c_str() : "none"; }
    };
    static void stop() noexcept { throw std::runtime_error("out of noexcept"); }
    int main(int argc, char **argv) {
        std::string how = argv[1], text = argc > 2 ? argv[2] : "a text";
        if (how == "runtime") throw std::runtime_error(text);
        if (how == "at") return std::vector<int>(3).at(7);
        if (how == "stoi") return std::stoi(text);
        if (how == "alloc") throw std::bad_alloc();
        if (how == "optional") return std::optional<int>().value();
        if (how == "variant") return std::get<int>(std::variant<int, long>(7L));
        if (how == "function") std::function<void()>()();
        if (how == "system") throw std::system_error(ENOENT, std::generic_category(), "opening");
        if (how == "plain") throw Plain();
        if (how == "member") throw Member(text);
        if (how == "numbered") throw Numbered("with a number");
        if (how == "derived") throw Derived(text);
        if (how == "far") throw Far(text);
        if (how == "noexcept") stop();
        if (how == "thread") { std::thread([&] { throw std::logic_error(text); }).join(); }
        if (how == "rethrown") {
            try { throw std::runtime_error(text); } catch (...) { std::rethrow_exception(std::current_exception()); }
        }
        if (how == "second") throw Second(text);
        if (how == "virtual") throw Virtual();
        if (how == "diamond") throw Diamond();
        if (how == "inner") throw Inner(text);
        if (how == "buffer") throw Buffer();
        if (how == "chooses") throw Chooses(argc + 1);
        if (how == "shared") throw Shared(text);
        if (how == "files") std::filesystem::file_size("/none");
        if (how == "nested") {
            try { throw std::runtime_error("the inner one"); } catch (...) { std::throw_with_nested(std::logic_error(text)); }
        }
        if (how == "hidden") throw Hidden("not this");
        if (how == "private") throw Private("not to be caught as std::exception");
        if (how == "pointer") throw new std::runtime_error("by pointer");
        if (how == "kept") {
            std::exception_ptr kept;
            try { throw std::runtime_error("kept"); } catch (...) { kept = std::current_exception(); }
            std::terminate();
        }
        if (how == "other-thread") {
            std::thread([] { try { throw std::runtime_error("other-thread"); } catch (...) { for (;;) std::this_thread::yield(); } }).detach();
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
            std::terminate();
        }
        if (how == "number") throw 7;
        if (how == "text") throw "a text of C";
        if (how == "other") throw Other();
        if (how == "terminate") std::terminate();
        if (how == "handled") { try { throw std::runtime_error("handled"); } catch (...) { abort(); } }
        if (how == "before") { try { throw std::runtime_error("before"); } catch (...) {} std::terminate(); }
        return 0;
    }"#,
    command: "g++ -std=c++17 -g -pthread -o thrown thrown.cc && g++ -std=c++17 -O2 -pthread -o fast thrown.cc && \
              g++ -std=c++17 -O2 -no-pie -static-libstdc++ -static-libgcc -pthread -o own thrown.cc && \
              clang++ -std=c++17 -O2 -pthread -o clang thrown.cc && \
              clang++ -stdlib=libc++ -std=c++17 -O2 -pthread -o libcxx thrown.cc && \
              clang++ -stdlib=libc++ -std=c++17 -O2 -static -pthread -o libcxx-static thrown.cc -lc++abi",
};

#[apply(watch_test!)]
fn cxx_has_the_what_of_its_exception() {
    let folder = CXX.folder();
    let long = "0123456789abcdef0123456789abcdef0123456789abcdef";
    let (long_member, long_runtime) = (format!("member {long}"), format!("runtime {long}"));
    let table = [
        ("runtime", "a text"),
        (long_runtime.as_str(), long),
        ("at", "vector::_M_range_check: __n (which is 7) >= this->size() (which is 3)"),
        ("stoi", "stoi"),
        ("alloc", "std::bad_alloc"),
        ("optional", "bad optional access"),
        ("variant", "std::get: wrong index for variant"),
        ("function", "bad_function_call"),
        ("system", "opening: No such file or directory"),
        ("plain", "a plain one"),
        ("member short", "short"),
        (long_member.as_str(), long),
        ("numbered", "with a number"),
        ("derived", "a text"),
        ("far", "a text"),
        ("noexcept", "out of noexcept"),
        ("thread", "a text"),
        ("rethrown", "a text"),
        ("second", "a text"),
        ("virtual", "virtually"),
        ("diamond", "virtually"),
        ("inner", "a text"),
        ("buffer", "in a buffer"),
        ("chooses", "the third"),
        ("chooses more", "the fourth"),
        ("shared", "a text"),
        ("files", "filesystem error: cannot get file size: No such file or directory [/none]"),
        ("nested", "a text"),
        // The look-alikes: what() writes, no std::exception to a catch, no exception, one that is handled, was, is kept, or is another thread's.
        ("hidden", ""),
        ("private", ""),
        ("pointer", ""),
        ("kept", ""),
        ("other-thread", ""),
        ("number", ""),
        ("text", ""),
        ("other", ""),
        ("terminate", ""),
        ("handled", ""),
        ("before", ""),
    ];
    for program in ["./thrown", "./fast", "./own", "./clang"] {
        compare(&folder, program, "c++", &table);
    }
    // LLVM's library says some of it in its own words, and keeps the exception behind a key of the thread.
    let own = [
        ("at", "vector"),
        ("stoi", "stoi: no conversion"),
        ("optional", "bad_optional_access"),
        ("variant", "bad_variant_access"),
        ("function", "std::exception"),
        ("files", "filesystem error: in file_size: No such file or directory [\"/none\"]"),
    ];
    let own_text = |argument: &str| own.iter().find(|(other, _)| *other == argument).map(|(_, text)| *text);
    let table = table.map(|(argument, text)| (argument, own_text(argument).unwrap_or(text)));
    compare(&folder, "./libcxx", "c++", &table);
    compare(&folder, "./libcxx-static", "c++", &table[..6]);
}

pub(crate) const GO: Program = Program {
    folder: "go-panics",
    file: "panics.go",
    source: "package main
    import (\"errors\"; \"fmt\"; \"os\"; \"runtime\"; \"runtime/debug\"; \"sync\"; \"time\")
    type item struct { before [3]int64; field int64 }
    type own struct { number int }
    func (it own) Error() string { return fmt.Sprint(\"error number \", it.number) }
    type shown struct{}
    func (shown) String() string { return \"shows itself\" }
    //go:noinline
    func at(values []int, index int) int { return values[index] }
    //go:noinline
    func divide(one, other int) int { return one / other }
    //go:noinline
    func touch(item *item) int64 { return item.field }
    func try() { defer func() { recover() }(); panic(\"recovered\") }
    func deep(n int) int { return deep(n + 1) + 1 }
    func main() {
        switch os.Args[1] {
        case \"text\": panic(\"a text\")
        case \"format\": panic(fmt.Sprintf(\"%d and %s\", len(os.Args), os.Args[1]))
        case \"index\": at([]int{1, 2, 3}, 7)
        case \"divide\": divide(1, len(os.Args)-2)
        case \"map\": var none map[string]int; none[\"x\"] = 1
        case \"type\": var any interface{} = \"text\"; fmt.Println(any.(int))
        case \"error\": panic(errors.New(\"an error\"))
        case \"own\": panic(own{7})
        case \"shown\": panic(shown{})
        case \"nil\": touch(nil)
        case \"goroutine\": go func() { panic(\"in a goroutine\") }(); time.Sleep(time.Minute)
        case \"again\": defer func() { panic(\"the second\") }(); panic(\"the first\")
        case \"closed\": closed := make(chan int); close(closed); close(closed)
        case \"number\": panic(7)
        case \"recovered\": try(); touch(nil)
        case \"deadlock\": select {}
        case \"locked\": try(); var lock sync.Mutex; lock.Lock(); lock.Lock()
        case \"unlocked\": try(); var lock sync.Mutex; lock.Unlock()
        case \"meanwhile\": defer func() { var lock sync.Mutex; lock.Unlock() }(); panic(\"not the end\")
        case \"writes\":
            // Also where it may use one processor alone: else no write is interrupted by another one.
            runtime.GOMAXPROCS(4)
            all := map[int]int{}
            for i := 0; i < 4; i++ { go func() { for { all[1]++ } }() }
            time.Sleep(time.Minute)
        case \"deep\": debug.SetMaxStack(1 << 16); deep(len(os.Args))
        }
    }",
    command: "HOME=$PWD GO111MODULE=off go build -o panics panics.go && HOME=$PWD GO111MODULE=off go build -ldflags='-s -w' -o bare panics.go",
};

#[apply(watch_test!)]
fn go_has_the_value_of_its_panic() {
    let folder = GO.folder();
    let invalid = "runtime error: invalid memory address or nil pointer dereference";
    let table = [
        ("text", "a text"),
        ("format", "2 and format"),
        ("index", "runtime error: index out of range [7] with length 3"),
        ("divide", "runtime error: integer divide by zero"),
        ("map", "assignment to entry in nil map"),
        ("type", "interface conversion: interface {} is string, not int"),
        ("error", "an error"),
        ("own", "error number 7"),
        ("shown", "shows itself"),
        ("nil", invalid),
        ("goroutine", "in a goroutine"),
        ("again", "the second"),
        ("closed", "close of closed channel"),
        // What the runtime gives up for, also after a panic that was recovered, and during one.
        ("deadlock", "all goroutines are asleep - deadlock!"),
        ("locked", "all goroutines are asleep - deadlock!"),
        ("unlocked", "sync: unlock of unlocked mutex"),
        ("meanwhile", "sync: unlock of unlocked mutex"),
        ("writes", "concurrent map writes"),
        ("deep", "stack overflow"),
        // The look-alike: no text.
        ("number", ""),
    ];
    for program in ["./panics", "./bare"] {
        compare(&folder, &format!("env GOTRACEBACK=crash {program}"), "go", &table);
        let text =
            run(&folder, &format!("env GOTRACEBACK=crash {program} deadlock")).crashes[0]["diagnosis"]["text"].clone();
        assert!(text.as_str().is_some_and(|text| text.starts_with("Go's runtime ends it with SIGABRT")), "{text}");
        // Without an abort only a fault has a record.
        compare(&folder, program, "go", &[("nil", invalid), ("recovered", invalid)]);
        let found = run(&folder, &format!("{program} nil")).crashes[0]["diagnosis"].clone();
        let text = "accesses address 0x18: near NULL, as a field at that offset of a NULL pointer is";
        assert_eq!(found, json!({ "kind": "null_dereference", "text": text, "confidence": "likely" }));
    }
}

/// A check of V8 that fails, and what looks like it: a message of its own that is no check's, and a lack of memory.
#[apply(watch_test!)]
fn v8_has_the_message_of_its_check() {
    let scratch = Scratch::new();
    let check =
        "--testing-d8-test-runner --allow-natives-syntax -e 'function f() {} f(); %OptimizeFunctionOnNextCall(f)'";
    let found = message(&scratch, &format!("node {check}"));
    assert_eq!(found, json!({ "runtime": "v8", "text": "unreachable code" }));
    for other in ["--allow-natives-syntax -e '%AbortJS(\"by hand\")'", "-e 'process.abort()'"] {
        assert_eq!(message(&scratch, &format!("node {other}")), Value::Null, "{other}");
    }
    // It keeps no text of a lack of memory, but its functions say so.
    let run =
        run(&scratch, "node --max-old-space-size=20 -e 'const all = []; for (;;) all.push(Array(1000).fill(0.5))'");
    assert_eq!(run.crashes.len(), 1, "{:#?}", run.crashes);
    assert_eq!(run.crashes[0]["runtime_message"], Value::Null);
    let text = run.crashes[0]["diagnosis"]["text"].as_str().unwrap_or_default();
    assert!(text.starts_with("V8 ends it for a lack of memory"), "{:#}", run.crashes[0]);
}

/// SIGABRT does not end process 1 of a pid namespace: its abort() halts, and has said the same.
#[apply(watch_test!)]
fn process_1_has_its_messages() {
    let folder = CXX.folder();
    let of = |command: &str| {
        let run = run(&folder, &format!("unshare -pf --mount-proc {command}"));
        // unshare ends itself by the same signal.
        let crashes: Vec<&Value> = run.crashes.iter().filter(|crash| crash["code"] == "SI_KERNEL").collect();
        assert_eq!(crashes.len(), 1, "{command}: {:#?}", run.crashes);
        (crashes[0]["abort_message"].clone(), crashes[0]["runtime_message"].clone())
    };
    let program = programs().join("failed-assert");
    let (said, _) = of(&program.display().to_string());
    assert!(said.as_str().is_some_and(|text| text.contains("Assertion `")), "{said}");
    let (said, what) = of("./fast runtime");
    assert_eq!((said, what), (Value::Null, json!({ "runtime": "c++", "text": "a text" })));
}

/// Programs abort all the time while faultline starts: the first one after that has its message. It had none in 8 of 36 starts.
#[apply(watch_test!)]
fn the_first_abort_after_the_start_has_its_message() {
    let scratch = Scratch::new();
    let program = named(&scratch, "failed-assert", "first-assert");
    let script = format!("while :; do {} >/dev/null 2>&1; done", program.display());
    let mut shells: Vec<_> =
        (0..2).map(|_| Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).spawn().unwrap()).collect();
    let mut missing = 0;
    for _ in 0..20 {
        let mut watch = Watch::start("first-assert", &[]);
        missing += u32::from(watch.next()["abort_message"].is_null());
        watch.stop();
    }
    for shell in &mut shells {
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
    assert_eq!(missing, 0, "of 20 starts");
}
