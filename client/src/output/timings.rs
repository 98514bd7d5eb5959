//! Where the daemon's time went, step by step.

use serde_json::Value;

use super::note;

/// Tells the steps of an operation whose metadata has them, and their sum, on standard error.
pub fn tell(title: &str, metadata: &Value) {
    let Some(steps) = metadata.get("timings").and_then(Value::as_array) else { return };
    let micros = |step: &Value| step.get("us").and_then(Value::as_u64).unwrap_or_default();
    note(format!("{title}: {} ms in the daemon", millis(steps.iter().map(micros).sum())));
    for step in steps {
        let what = step.get("step").and_then(Value::as_str).unwrap_or_default();
        note(format!("{:>10} ms  {what}", millis(micros(step))));
    }
}

fn millis(micros: u64) -> String {
    format!("{}.{:03}", micros / 1000, micros % 1000)
}
