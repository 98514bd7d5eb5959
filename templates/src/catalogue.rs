//! The templates that come with Cabin, and when a template's turn is.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Why templates are rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// The instance was made from an image.
    Create,
    /// The instance was made from another one.
    Copy,
    /// The instance got another name.
    Rename,
    /// The instance is about to start.
    Start,
}

impl Trigger {
    /// As `when` in metadata.yaml has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Trigger::Create => "create",
            Trigger::Copy => "copy",
            Trigger::Rename => "rename",
            Trigger::Start => "start",
        }
    }
}

/// Those of `templates` that are due at `trigger`; `when` tells the moments a template names.
pub fn due<'a, T>(
    templates: impl IntoIterator<Item = &'a T>,
    trigger: Trigger,
    when: impl Fn(&T) -> &[String],
) -> Vec<&'a T> {
    templates
        .into_iter()
        .filter(|template| when(template).iter().any(|word| word == trigger.name()))
        .collect()
}

/// A template that comes with Cabin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipped {
    /// The name, as a file in `templates/` of an image: `hostname.tpl`.
    pub file: String,
    /// Where the result goes.
    pub path: String,
    /// When it is rendered.
    pub when: Vec<String>,
    /// Whether a file that is there is left alone.
    pub create_only: bool,
    /// Permission bits.
    pub mode: Option<u32>,
    /// The template.
    pub content: &'static str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    path: String,
    when: Vec<Trigger>,
    #[serde(default)]
    create_only: bool,
    mode: Option<String>,
}

/// Name, description and template of each.
pub const SHIPPED: &[(&str, &str, &str)] = &[
    ("hostname", include_str!("../hostname.yaml"), include_str!("../hostname.tpl")),
    ("hosts", include_str!("../hosts.yaml"), include_str!("../hosts.tpl")),
];

/// The shipped templates, read.
///
/// # Errors
/// When a description cannot be read, which a test rules out.
pub fn shipped() -> Result<Vec<Shipped>, Error> {
    SHIPPED
        .iter()
        .map(|(name, description, content)| {
            let read: Description =
                serde_yaml::from_str(description).map_err(|source| Error::Describe { name, source })?;
            Ok(Shipped {
                file: format!("{name}.tpl"),
                path: read.path,
                when: read.when.iter().map(|trigger| trigger.name().to_owned()).collect(),
                create_only: read.create_only,
                mode: read.mode.and_then(|mode| u32::from_str_radix(&mode, 8).ok()),
                content,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{Context, InstanceFacts};

    #[test]
    fn every_shipped_template_renders_the_name() {
        for template in shipped().unwrap() {
            let context = Context {
                trigger: Trigger::Create,
                path: template.path.clone(),
                instance: InstanceFacts { name: "web".to_owned(), ..Default::default() },
                config: Default::default(),
                devices: Default::default(),
                properties: Default::default(),
            };
            let text = crate::render(template.content, &context).unwrap();
            assert!(text.contains("web") && text.ends_with('\n') && !text.contains('{'), "{text}");
            assert_eq!(template.mode, Some(0o644));
        }
    }

    #[test]
    fn templates_are_due_at_the_moments_they_name() {
        let all = shipped().unwrap();
        let names = |trigger| due(&all, trigger, |template| &template.when).len();
        assert_eq!((names(Trigger::Create), names(Trigger::Rename), names(Trigger::Start)), (2, 2, 0));
    }
}
