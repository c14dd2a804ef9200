//! HotSpot, the virtual machine of Java.

/// The function that ends a process whose heap has reached its limit (-XX:+CrashOnOutOfMemoryError).
pub(crate) fn is_out_of_memory(function: &str) -> bool {
    function == "report_java_out_of_memory"
}
