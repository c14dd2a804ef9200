//! What shows the calls of a task, besides a crash: `--trigger`.

use libbpf_rs::btf::BtfType;

use super::argument::FetchedField;
use super::decode;
use super::events::is_event;
use super::functions::{Functions, TypeKind, kind};
use super::plan::{FunctionPlan, Side};
use super::programs::is_program;
use super::select;
use super::shape::Shape;
use crate::probe::abi::call::{fl_condition, fl_test};
use crate::siginfo;

/// The kernel's functions that end a BPF scheduler. Each calls the one before it; compilers put some of them into their callers, but none that
/// takes a variable number of arguments.
const SCHEDULER_ENDS: [&str; 4] = ["scx_vexit", "__scx_exit", "scx_exit", "scx_ops_exit_kind"];
/// Their parameter that says why, an enum, and the least of its values that is an error.
const SCHEDULER_ENDS_BY: (&str, &str) = ("kind", "SCX_EXIT_ERROR");
/// The word for it.
const SCHEDULER_ERROR: &str = "scheduler_error";
/// The kernel's own errors (ERESTARTSYS) end before it.
const MOST_ERRORS: i64 = 600;

/// A trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TriggerOn {
    /// The delivery of this signal.
    Signal(u32),
    /// This function returns this.
    Result {
        /// Its name.
        function: String,
        /// An error's number is below 0.
        result: i64,
    },
    /// A call of this function begins, or this tracepoint is passed.
    Begin {
        /// Its name.
        function: String,
        /// Only if this holds.
        condition: Option<Condition>,
    },
    /// The kernel ends a BPF scheduler because of an error.
    SchedulerError,
}

/// Which calls are shown when a trigger fires.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stitch {
    /// Those of its task.
    #[default]
    Task,
    /// The newest ones of all tasks.
    Time,
    /// Those of all tasks with the same value of this argument.
    Argument(String),
}

impl Stitch {
    /// `task`, `time`, or the name of an argument
    ///
    /// # Errors
    /// There is no name.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("name an argument, or give task or time".to_owned()),
            "task" => Ok(Self::Task),
            "time" => Ok(Self::Time),
            argument => Ok(Self::Argument(argument.to_owned())),
        }
    }

    /// As it is typed.
    pub(super) fn word(&self) -> &str {
        match self {
            Self::Task => "task",
            Self::Time => "time",
            Self::Argument(argument) => argument,
        }
    }
}

/// A condition on an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// As records name it: `sig`, `p:task_struct.pid`.
    pub argument: String,
    /// As it is typed.
    pub test: &'static str,
    /// A number, an error as -ENOMEM, a signal, or a name of the argument's type.
    pub value: String,
}

/// The tests; one that begins another one comes behind it.
const TESTS: [(&str, fl_test); 7] = [
    ("<=", fl_test::FL_TEST_AT_MOST),
    (">=", fl_test::FL_TEST_AT_LEAST),
    ("!=", fl_test::FL_TEST_UNEQUAL),
    ("=", fl_test::FL_TEST_EQUAL),
    ("<", fl_test::FL_TEST_LESS),
    (">", fl_test::FL_TEST_MORE),
    ("&", fl_test::FL_TEST_ANY_BIT),
];

impl TriggerOn {
    /// `SIGUSR1`, `mmap=-ENOMEM`, `tp_btf:signal_generate:sig=11`, `scx_vexit:kind>=1024`, `scheduler_error`
    ///
    /// # Errors
    /// One line that says what is accepted.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == SCHEDULER_ERROR {
            return Ok(Self::SchedulerError);
        }
        let (name, condition) = split(text);
        let is_named = is_event(name) || condition.is_some();
        if is_named {
            one_function(name)?;
            let condition = condition.map(Condition::parse).transpose()?;
            return Ok(Self::Begin { function: name.to_owned(), condition });
        }
        let Some((function, result)) = name.split_once('=') else {
            return siginfo::parse_signal(text)
                .map(Self::Signal)
                .map_err(|error| format!("{error}, or FUNCTION=RESULT as mmap=-ENOMEM, or tp_btf:NAME"));
        };
        one_function(function)?;
        Ok(Self::Result { function: function.to_owned(), result: parse_result(result)? })
    }

    /// The name of the function or tracepoint that it waits for; `None` means that it waits for none.
    pub(super) fn function(&self) -> Option<String> {
        match self {
            Self::Signal(_) | Self::SchedulerError => None,
            Self::Result { function, .. } | Self::Begin { function, .. } => Some(function.clone()),
        }
    }

    /// The same for this kernel: which function it is that ends a scheduler.
    ///
    /// # Errors
    /// The kernel has none; in words.
    pub(super) fn resolved(&self, functions: &Functions<'_>) -> Result<Self, String> {
        if *self != Self::SchedulerError {
            return Ok(self.clone());
        }
        let (argument, least) = SCHEDULER_ENDS_BY;
        let is_kind = |name: &str, ty: BtfType<'_>| match kind(ty) {
            TypeKind::Enumeration { names, .. } => name == argument && names.iter().any(|(_, name)| name == least),
            _ => false,
        };
        let has_kind = |name: &&&str| {
            let parameters = functions.prototype(name).map(|prototype| prototype.parameters);
            parameters.is_some_and(|all| all.iter().any(|(name, ty)| is_kind(name, *ty)))
        };
        let Some(name) = SCHEDULER_ENDS.iter().find(has_kind) else {
            return Err(match functions.structure("sched_ext_ops") {
                None => "this kernel has no BPF schedulers (sched_ext)".to_owned(),
                Some(_) => format!("none of {} is among this kernel's types", SCHEDULER_ENDS.join(", ")),
            });
        };
        let condition = Condition { argument: argument.to_owned(), test: ">=", value: least.to_owned() };
        Ok(Self::Begin { function: (*name).to_owned(), condition: Some(condition) })
    }

    /// Does it wait for this function or tracepoint?
    pub(super) fn is_at(&self, name: &str) -> bool {
        match self {
            Self::Result { function, .. } | Self::Begin { function, .. } => select::is_same(function, name),
            Self::Signal(_) | Self::SchedulerError => false,
        }
    }

    /// If it is the beginning of calls of `name`: the condition.
    pub(super) fn begins(&self, name: &str) -> Option<Option<Condition>> {
        match self {
            Self::Begin { function, condition } if select::is_same(function, name) => Some(condition.clone()),
            _ => None,
        }
    }

    /// The text of a trigger at the beginning of `function`.
    pub(super) fn words(function: &str, condition: Option<&Condition>) -> String {
        condition.map_or_else(
            || function.to_owned(),
            |Condition { argument, test, value }| format!("{function}:{argument}{test}{value}"),
        )
    }
}

/// The name and the condition behind it: `NAME:ARGUMENT>=VALUE`. The names of programs and tracepoints have colons themselves.
fn split(text: &str) -> (&str, Option<&str>) {
    let parts = match text {
        _ if text.starts_with("tracepoint:") => 3,
        _ if is_event(text) || is_program(text) => 2,
        _ => 1,
    };
    match text.match_indices(':').nth(parts - 1) {
        Some((colon, _)) => (&text[..colon], Some(&text[colon + 1..])),
        None => (text, None),
    }
}

fn one_function(name: &str) -> Result<(), String> {
    select::check(name)?;
    if name.ends_with(':') {
        return Err(format!("`{name}` has no name behind it"));
    }
    if select::is_glob(name) {
        return Err(format!("`{name}` stands for several functions: name one"));
    }
    Ok(())
}

impl Condition {
    fn parse(text: &str) -> Result<Self, String> {
        let tests = TESTS.iter().filter_map(|(test, _)| Some((text.find(test)?, *test)));
        // The first one; of those at the same place the longest.
        let first = tests.min_by_key(|(at, test)| (*at, std::cmp::Reverse(test.len())));
        let parts = first.map(|(at, test)| (&text[..at], test, &text[at + test.len()..]));
        match parts {
            Some((argument, test, value)) if !argument.is_empty() && !value.is_empty() => {
                Ok(Self { argument: argument.to_owned(), test, value: value.to_owned() })
            }
            _ => Err(format!("`{text}` is no condition: give an argument and a value, as sig=11 (= != < <= > >= &)")),
        }
    }

    /// The same for the kernel program, at this function. Both sides of a system call have the same values.
    ///
    /// # Errors
    /// As [`Self::on`], or nothing is known of its arguments.
    pub(super) fn at(&self, planned: &FunctionPlan) -> Result<fl_condition, String> {
        let side = planned.syscall.as_ref().or(planned.kernel.as_ref());
        side.ok_or_else(|| "its arguments are not known".to_owned()).and_then(|side| self.on(side))
    }

    /// The same for the kernel program, for calls that are read as `side` says.
    ///
    /// # Errors
    /// There is no such argument, or none with such a value; in words.
    fn on(&self, side: &Side) -> Result<fl_condition, String> {
        let is_number = |field: &FetchedField| field.text.is_none() && !matches!(field.shape, Shape::Bits(..));
        let mut fields = side.fields.iter().enumerate().filter(|(_, field)| is_number(field));
        let Some((index, field)) = fields.clone().find(|(_, field)| field.name == self.argument) else {
            let known: Vec<&str> = fields.by_ref().map(|(_, field)| field.name.as_str()).collect();
            return Err(format!("it has no number `{}`, but {}", self.argument, known.join(", ")));
        };
        let (shape, is_signed) = (&field.shape, matches!(field.shape, Shape::Signed(_)));
        let operand =
            self.operand(shape).ok_or_else(|| format!("`{}` is no value of `{}`", self.value, self.argument))?;
        let unused = 64 - 8 * shape.bytes().clamp(1, 8);
        let test = TESTS.iter().find(|(test, _)| *test == self.test).map_or(fl_test::FL_TEST_ALWAYS, |(_, test)| *test);
        Ok(fl_condition {
            value: u8::try_from(index).unwrap_or(u8::MAX),
            test: u8::try_from(test.0).unwrap_or(0),
            is_signed: u8::from(is_signed),
            unused,
            operand: if is_signed { operand.cast_unsigned() } else { operand.cast_unsigned() & (u64::MAX >> unused) },
            ..fl_condition::default()
        })
    }

    fn operand(&self, shape: &Shape) -> Option<i64> {
        let by_name = match shape {
            Shape::Enumeration(names, _) => {
                names.iter().find(|(_, name)| *name == self.value).map(|(number, _)| *number)
            }
            Shape::Words(..) => siginfo::parse_signal(&self.value).ok().map(i128::from),
            _ => None,
        };
        by_name.and_then(|number| i64::try_from(number).ok()).or_else(|| parse_result(&self.value).ok())
    }
}

/// `-ENOMEM`, `-12`, `0`, `0x10`
fn parse_result(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is no result: give a number, or an error as -ENOMEM");
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).map(u64::cast_signed).map_err(|_| wrong());
    }
    let name = text.strip_prefix('-').ok_or_else(wrong)?.to_ascii_uppercase();
    (1..=MOST_ERRORS)
        .find(|&number| decode::error_name(-number).as_deref() == Some(&name))
        .map(|number| -number)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TriggerOn, String> {
        TriggerOn::parse(text)
    }

    #[test]
    fn a_trigger_is_a_signal_or_a_result() {
        assert_eq!(parse("usr1"), Ok(TriggerOn::Signal(10)));
        let result = |function: &str, result: i64| Ok(TriggerOn::Result { function: function.to_owned(), result });
        assert_eq!(parse("mmap=-ENOMEM"), result("mmap", -12));
        assert_eq!(parse("mmap=-12"), result("mmap", -12));
        assert_eq!(parse("do_truncate=0"), result("do_truncate", 0));
        assert_eq!(parse("brk=0xffffffffffffffff"), result("brk", -1));
        assert_eq!(parse("nanosleep=-ERESTARTSYS"), result("nanosleep", -512));
        assert_eq!(parse("bpf:ingress=1"), result("bpf:ingress", 1));
        for wrong in ["", "nothing", "mmap=", "mmap=ENOMEM", "mmap=-ENOTHING", "=1", "mm*=1", "mmap=-"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("nothing").unwrap_err().contains("FUNCTION=RESULT"));
    }

    #[test]
    fn or_the_beginning_of_a_call_and_a_condition() {
        let begin = |function: &str, condition: Option<(&str, &'static str, &str)>| {
            let condition = condition.map(|(argument, test, value)| Condition {
                argument: argument.to_owned(),
                test,
                value: value.to_owned(),
            });
            Ok(TriggerOn::Begin { function: function.to_owned(), condition })
        };
        assert_eq!(parse("tp_btf:sched_switch"), begin("tp_btf:sched_switch", None));
        assert_eq!(parse("tracepoint:oom:mark_victim"), begin("tracepoint:oom:mark_victim", None));
        let tracepoint = begin("tracepoint:signal:signal_generate", Some(("sig", "=", "SIGSEGV")));
        assert_eq!(parse("tracepoint:signal:signal_generate:sig=SIGSEGV"), tracepoint);
        assert_eq!(parse("scx_vexit:kind>=1024"), begin("scx_vexit", Some(("kind", ">=", "1024"))));
        assert_eq!(parse("bpf:tick:p:task_struct.pid<5"), begin("bpf:tick", Some(("p:task_struct.pid", "<", "5"))));
        assert_eq!(parse("madvise:behavior&1"), begin("madvise", Some(("behavior", "&", "1"))));
        assert_eq!(parse("scheduler_error"), Ok(TriggerOn::SchedulerError));
        for wrong in ["tp_btf:", "tp_btf:x:", "tp_btf:x:y", "tp_btf:x:=1", "tp_btf:x*", "f:y>="] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
