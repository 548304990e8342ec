//! Functions of SQL: what analysts have beside DataFusion's own, and what nobody has.

use datafusion::execution::FunctionRegistry as _;
use datafusion::execution::session_state::SessionState;

/// Scalar functions that make a value as large as a number says. Their memory is not counted by the memory pool, so
/// that a single call could take all of the machine's. (The table functions `generate_series` and `range` stay: they bring
/// their rows one batch at a time.)
const UNBOUNDED: [&str; 8] =
    ["repeat", "lpad", "rpad", "array_repeat", "array_resize", "range", "generate_series", "space"];

/// Takes away what no query may call.
pub(super) fn restrict(state: &mut SessionState) {
    for name in UNBOUNDED {
        // One that this version of DataFusion does not have needs no removal.
        drop(state.deregister_udf(name));
    }
}
