//! The errors of the library.

/// Why something can't be traced. Its text is one line that says what failed, and what to do about it if there is a cure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This process lacks a privilege. The text names it.
    #[error("{0}")]
    NotPermitted(String),
    /// The running kernel lacks something that is needed, or is locked down. The text says what.
    #[error("{0}")]
    Unsupported(String),
    /// There is no such process, or not any more.
    #[error("failed to watch PID {pid}: no such process")]
    NoSuchProcess {
        /// The number.
        pid: u32,
    },
    /// The number is that of a thread other than the main one.
    #[error("failed to watch PID {tid}: it is a thread of process {pid}, use --pid {pid}")]
    IsThread {
        /// The number of the thread.
        tid: u32,
        /// The process that it belongs to.
        pid: u32,
    },
    /// What was asked for can't be done by any kernel: a name that is too long, a folder that is no cgroup. The text says what to ask for
    /// instead.
    #[error("{0}")]
    Invalid(String),
    /// The system refused something else. The text says what was to be done; the reason is the [source](std::error::Error::source).
    #[error(transparent)]
    System(Box<dyn std::error::Error + Send + Sync>),
}

impl From<anyhow::Error> for Error {
    /// The typed error if there is one beneath: it says itself what failed.
    fn from(error: anyhow::Error) -> Self {
        error.downcast().unwrap_or_else(|other| Self::System(other.into()))
    }
}
