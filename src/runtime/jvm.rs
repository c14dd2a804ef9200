//! HotSpot, the virtual machine of Java.

use crate::evidence::File;

/// Is it the file that HotSpot is in?
pub(crate) fn is_file(file: &File) -> bool {
    file.path.as_deref().is_some_and(|path| path.ends_with("/libjvm.so"))
}

/// The function that ends a process whose heap has reached its limit (-XX:+CrashOnOutOfMemoryError).
pub(crate) fn is_out_of_memory(function: &str) -> bool {
    function == "report_java_out_of_memory"
}
