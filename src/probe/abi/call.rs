//! The types of `bpf/include/abi/call.h`, through the skeleton's BTF.

use super::Plain;

/// The call object's generated half.
#[allow(missing_docs, non_camel_case_types, non_snake_case)]
#[allow(clippy::all, clippy::panic, clippy::unwrap_used, clippy::expect_used)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/call.skel.rs"));
}

pub use skel::types::{
    fl_call, fl_call_state, fl_config, fl_counter, fl_event, fl_fetch, fl_fetch_flag, fl_fetch_kind, fl_function,
    fl_function_flag, fl_task, fl_trigger_kind,
};

// SAFETY: abi/call.h has it so, and names what would be padding.
unsafe impl Plain for fl_config {}
// SAFETY: as above.
unsafe impl Plain for fl_fetch {}
// SAFETY: as above.
unsafe impl Plain for fl_function {}
// SAFETY: as above. An enum is a number in a struct of its own.
unsafe impl Plain for fl_call {}
// SAFETY: as above.
unsafe impl Plain for fl_task {}
// SAFETY: as above.
unsafe impl Plain for fl_event {}
