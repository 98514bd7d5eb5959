//! The doctor's report for people.

use serde_json::Value;

/// One line for each check, advice under what does not work, a verdict at the end.
pub fn render(report: &Value) -> String {
    let mut said = String::new();
    let checks = report.as_array().map(Vec::as_slice).unwrap_or_default();
    let width = checks.iter().map(|check| field(check, "name").len()).max().unwrap_or(0);
    for check in checks {
        let mark = match field(check, "state") {
            "good" => "ok     ",
            "lacking" => "lacking",
            _ => "BAD    ",
        };
        said.push_str(&format!("{mark}  {:width$}  {}\n", field(check, "name"), field(check, "found")));
        let advice = field(check, "advice");
        if !advice.is_empty() {
            said.push_str(&format!("{:9}{:width$}  -> {advice}\n", "", ""));
        }
    }
    let count = |state: &str| checks.iter().filter(|check| field(check, "state") == state).count();
    let verdict = match (count("bad"), count("lacking")) {
        (0, 0) => "Everything works.".to_owned(),
        (0, lacking) => format!("Containers run; {lacking} things are not available."),
        (bad, _) => format!("Containers cannot run here yet: {bad} things must be put right."),
    };
    said.push_str(&format!("\n{verdict}\n"));
    said
}

/// Whether something needed does not work.
pub fn broken(report: &Value) -> bool {
    report.as_array().into_iter().flatten().any(|check| field(check, "state") == "bad")
}

fn field<'a>(check: &'a Value, key: &str) -> &'a str {
    check[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn advice_stands_under_what_is_lacking() {
        let report = json!([
            {"name": "kernel", "state": "good", "found": "6.18", "advice": ""},
            {"name": "program criu", "state": "lacking", "found": "missing", "advice": "apt-get install criu"},
        ]);
        let said = render(&report);
        assert!(said.contains("ok       kernel        6.18\n"), "{said}");
        assert!(said.contains("-> apt-get install criu\n"), "{said}");
        assert!(said.ends_with("Containers run; 1 things are not available.\n"), "{said}");
        assert!(!broken(&report));
    }
}
