//! What a template can see: the instance, its config and devices, the image's properties, the moment.

use std::collections::BTreeMap;

use crate::catalogue::Trigger;

/// What a template can ask about its instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceFacts {
    /// The name.
    pub name: String,
    /// The architecture as the kernel names it.
    pub architecture: String,
    /// Whether it runs without a user namespace.
    pub privileged: bool,
    /// Whether it is deleted when it stops.
    pub ephemeral: bool,
}

/// Everything a template can see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Why it is rendered.
    pub trigger: Trigger,
    /// Where the result goes.
    pub path: String,
    /// The instance; also under the name `container`.
    pub instance: InstanceFacts,
    /// The expanded config; also behind `config_get(key, default)`.
    pub config: BTreeMap<String, String>,
    /// The expanded devices.
    pub devices: BTreeMap<String, BTreeMap<String, String>>,
    /// The template's own properties, from the image.
    pub properties: BTreeMap<String, String>,
}

impl Context {
    pub(crate) fn value(&self) -> minijinja::Value {
        let yes_no = |truth: bool| if truth { "true" } else { "false" };
        // Bools are text, as Incus gives them: public templates compare with "true".
        let instance = minijinja::context! {
            name => self.instance.name.clone(),
            type => "container",
            architecture => self.instance.architecture.clone(),
            privileged => yes_no(self.instance.privileged),
            ephemeral => yes_no(self.instance.ephemeral),
        };
        minijinja::context! {
            trigger => self.trigger.name(),
            path => self.path.clone(),
            container => instance.clone(),
            instance => instance,
            config => self.config.clone(),
            devices => self.devices.clone(),
            properties => self.properties.clone(),
        }
    }
}
