//! What became of a plan that a daemon was told: which steps it met, and what they came to.

use crate::subject::Subject;
use crate::wait::until_true;

/// One step that a plan can name.
#[derive(Debug, Clone)]
pub struct Point {
    /// What is done there.
    pub what: String,
    /// Whether it can be made to fail, and all is taken back then.
    pub fails: bool,
    /// Whether it can be made to fail, and something is left behind then. At what neither can, the daemon can only die.
    pub leaves: bool,
}

/// What became of a plan.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Whether it made a point fail.
    pub failed: bool,
    /// How many steps were taken back since.
    pub undone: u64,
}

impl Subject {
    /// The points passed since a plan was armed.
    #[must_use]
    pub fn points(&self) -> Vec<Point> {
        let found = self.get("/internal/fault");
        let list = found["points"].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|it| Point {
                what: it["what"].as_str().unwrap_or_default().to_owned(),
                fails: it["kind"] == "fails",
                leaves: it["kind"] == "leaves",
            })
            .collect()
    }

    /// What became of the plan that is armed.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let found = self.get("/internal/fault");
        Outcome { failed: found["failed"] == true, undone: found["undone"].as_u64().unwrap_or_default() }
    }

    /// Waits until somebody is held at the point that the plan named.
    pub fn wait_held(&self, what: &str) {
        until_true(&format!("somebody to be held at `{what}`"), 30, || {
            self.points().iter().any(|point| point.what.starts_with(what))
        });
    }
}
