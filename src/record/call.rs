//! The records of calls, which are the JSON and the source of the text.

use serde::{Deserialize, Deserializer, Serialize};

use super::Head;
use crate::evidence::Change;
use crate::hex::Hex;
use crate::probe::Way;
use crate::time::Timestamp;

/// A value of a call. Read back, a string that is no address is [`Value::Words`], unless its [`Argument`] is of a type that has texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// An address, or a number that is too large for JSON's numbers.
    Address(Hex),
    /// A count, a size, a descriptor.
    Number(i64),
    /// `true` and `false`
    Boolean(bool),
    /// By name: `PROT_READ|PROT_EXEC`, `SIGTERM`.
    Words(String),
    /// A string or a path.
    Text(String),
}

/// One value that was read of a call: an argument, or a field of what it points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Argument {
    /// `addr`; of a field `vma:vm_area_struct.vm_start`.
    pub name: String,
    /// As C writes it.
    #[serde(rename = "type")]
    pub kind: String,
    /// When the call began; `None` means that it could not be read.
    pub value: Option<Value>,
    /// When it ended, if that is another value.
    pub after: Option<Value>,
    /// The number behind `value`.
    #[serde(skip)]
    pub raw: Option<u64>,
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Line {
            name: String,
            #[serde(rename = "type")]
            kind: String,
            value: Option<Value>,
            after: Option<Value>,
        }
        let Line { name, kind, value, after } = Line::deserialize(deserializer)?;
        let has_texts = kind == "path" || kind.contains("char");
        let value = match value {
            Some(Value::Words(text)) if has_texts => Some(Value::Text(text)),
            value => value,
        };
        Ok(Self { name, kind, value, after, raw: None })
    }
}

/// The state of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has ended.
    Returned,
    /// Its end was not seen: it was still under way, or it never returns.
    NotReturned,
    /// It has ended, which the next call of its thread proves; the kernel did not show its end, so that its result is not known.
    EndMissed,
}

/// A frame of the kernel's stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFrame {
    /// Where.
    pub address: Hex,
    /// `vm_munmap+0x3a`; `None` means that the kernel doesn't show its symbols.
    pub symbol: Option<String>,
}

/// The relation of a call to a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// In one word.
    pub kind: Change,
    /// In words: how the call changed the memory, file or signal of the crash.
    pub text: String,
    /// False: a guess, as where only the names of two files are the same.
    pub certain: bool,
}

/// One call of a function of the kernel. Fields as in docs/output.md; `None` is `null`, which means not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The process, as the host numbers it.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The process's name.
    pub comm: String,
    /// Its name: of a system call the plain one.
    pub function: String,
    /// How it was seen.
    pub attach: Way,
    /// In order.
    pub arguments: Vec<Argument>,
    /// `None` means that it has not returned, or returns nothing.
    #[serde(rename = "return")]
    pub result: Option<Value>,
    /// The error that `return` stands for, by name.
    pub error: Option<String>,
    /// Did it end?
    pub state: State,
    /// When it began.
    pub entered: Timestamp,
    /// How long it took; `None` means that it has not returned.
    pub duration_ns: Option<u64>,
    /// In how many recorded calls of its thread it was made; in an interrupt, of that. `None` means that this can't be known.
    pub depth: Option<u32>,
    /// An interrupt made it, while the thread only happened to run; `None` means that this can't be known.
    pub in_interrupt: Option<bool>,
    /// With `--kernel-stack`, innermost first.
    pub kernel_stack: Option<Vec<KernelFrame>>,
    /// What it has to do with the crash whose record it is in; `None` means nothing that is known.
    pub relation: Option<Relation>,
    /// It explains that crash.
    pub is_cause: bool,
    /// CLOCK_BOOTTIME of `entered`.
    #[serde(skip)]
    pub entered_ns: u64,
    /// The whole register, with its sign.
    #[serde(skip)]
    pub raw_result: Option<i64>,
}

impl Call {
    /// The number behind the value of this name.
    pub fn raw(&self, name: &str) -> Option<u64> {
        self.arguments.iter().find(|argument| argument.name == name)?.raw
    }

    /// The string of this name.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        match &self.arguments.iter().find(|argument| argument.name == name)?.value {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// CLOCK_BOOTTIME of its end; of one that was not seen to end, of its begin.
    pub fn ended_ns(&self) -> u64 {
        self.entered_ns.saturating_add(self.duration_ns.unwrap_or(0))
    }
}

/// A call as a record of its own: `--live`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LiveCall {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// The call.
    #[serde(flatten)]
    pub call: Call,
}

/// The record of a trigger that is no crash: `--trigger`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trigger {
    /// Kind, time and host.
    #[serde(flatten)]
    pub head: Head,
    /// `SIGUSR1`, or `mmap=-ENOMEM`.
    pub trigger: String,
    /// The process that was running.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The process's name.
    pub comm: String,
    /// False: in an interrupt or a thread of the kernel's own: the task only happened to run.
    pub certain: bool,
    /// What joins `calls` to it: `task`, `time`, or the name of an argument.
    pub stitched_by: String,
    /// The last calls, oldest first.
    pub calls: Vec<Call>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A call that has returned `result`, 1 ms long.
    pub(crate) fn call(function: &str, arguments: &[(&str, u64)], result: i64) -> Call {
        Call {
            pid: 100,
            tid: 100,
            comm: "own".to_owned(),
            function: function.to_owned(),
            attach: Way::Tracepoint,
            arguments: arguments
                .iter()
                .map(|&(name, raw)| Argument {
                    name: name.to_owned(),
                    kind: "t".to_owned(),
                    value: i64::try_from(raw).ok().map(Value::Number),
                    after: None,
                    raw: Some(raw),
                })
                .collect(),
            result: Some(Value::Number(result)),
            error: None,
            state: State::Returned,
            entered: Timestamp::from_unix_ns(0).unwrap(),
            duration_ns: Some(1_000_000),
            depth: Some(0),
            in_interrupt: Some(false),
            kernel_stack: None,
            relation: None,
            is_cause: false,
            entered_ns: 0,
            raw_result: Some(result),
        }
    }
}
