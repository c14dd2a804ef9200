//! `faultline call`: the last kernel calls of each task, told when it crashes.
mod functions;
mod select;
