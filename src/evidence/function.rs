//! Functions, as files name them.

/// A function that an address is in.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Function {
    /// Demangled.
    pub name: String,
    /// How far behind the function's beginning the address is, bytes. `None` means that there is no such number: the function is inlined,
    /// or this part of it lies elsewhere.
    pub offset: Option<u64>,
    /// The source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// It is part of the next function in the list.
    pub inlined: bool,
}

impl Function {
    /// `main+0x10`, or the name alone.
    pub fn symbol(&self) -> String {
        let offset = self.offset.map(|offset| format!("+{offset:#x}")).unwrap_or_default();
        format!("{}{offset}", self.name)
    }
}
