//! What a container's init is to be, and its limits.

use cabin_profiles::limits::MemoryEnforce;
use cabin_profiles::value::cpu::{self, Allowance, Cpus};
use cabin_profiles::value::size::SwapRule;
use cabin_profiles::{HostFacts, Limits};
use cabin_runtime::spec::{CgroupLimits, InitSpec, RenderedFile, Rlimit};
use cabin_storage::VolumeName;
use cabin_store::rows::{self, Config};
use cabin_templates::{Context, InstanceFacts, Trigger};

use super::{ids, is_true, root};
use crate::instance::Expanded;
use crate::{Error, Host, storage};

/// The init of an instance.
///
/// # Errors
/// When a value makes no sense, the pool is unavailable, or a template cannot be rendered.
pub(crate) fn init(
    host: &Host,
    project: &str,
    name: &str,
    row: &rows::Instance,
    expanded: &Expanded,
) -> Result<InitSpec, Error> {
    let pool = storage::pool(host, &row.pool)?;
    let limits = Limits::resolve(&expanded.config, &host.facts)?;
    Ok(InitSpec {
        name: name.to_owned(),
        root: root(pool.layers(&VolumeName::container(name)?)?),
        ids: ids(row, expanded),
        argv: vec!["/sbin/init".to_owned()],
        env: environment(&expanded.config),
        nesting: is_true(&expanded.config, "security.nesting"),
        rlimits: limits
            .rlimits
            .into_iter()
            .map(|limit| Rlimit { name: limit.name, soft: limit.soft, hard: limit.hard })
            .collect(),
        oom_score_adj: 0,
        files: rendered(host, project, name, row, expanded)?,
    })
}

fn environment(config: &Config) -> Vec<(String, String)> {
    let mut env = vec![
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("container".to_owned(), "lxc".to_owned()),
        ("TERM".to_owned(), "linux".to_owned()),
    ];
    for (key, value) in config {
        if let Some(key) = key.strip_prefix("environment.") {
            env.push((key.to_owned(), value.clone()));
        }
    }
    env
}

/// The files that templates make at this start. The container's own first process writes them, as its own
/// root and in its own root directory, so that no link inside can lead it out.
fn rendered(
    host: &Host,
    project: &str,
    name: &str,
    row: &rows::Instance,
    expanded: &Expanded,
) -> Result<Vec<RenderedFile>, Error> {
    let found = host.store().rows::<rows::Templates>().get(project, name)?;
    let templates = found.map(|found| found.row.templates).unwrap_or_default();
    let pending = row.config.get("volatile.apply_template").map(String::as_str);
    let mut files = Vec::new();
    for template in templates {
        let trigger = match pending {
            Some("create") if has(&template, "create") => Trigger::Create,
            Some("rename") if has(&template, "rename") => Trigger::Rename,
            Some("copy") if has(&template, "copy") => Trigger::Copy,
            _ if has(&template, "start") => Trigger::Start,
            _ => continue,
        };
        let context = context(name, trigger, row, expanded, &template);
        let content = cabin_templates::render(&template.content, &context)
            .map_err(|source| Error::Template { path: template.path.clone(), source })?;
        files.push(RenderedFile {
            path: template.path,
            content: content.into_bytes(),
            create_only: template.create_only,
            uid: template.uid,
            gid: template.gid,
            mode: template.mode,
        });
    }
    Ok(files)
}

fn has(template: &rows::Template, trigger: &str) -> bool {
    template.when.iter().any(|when| when == trigger)
}

fn context(
    name: &str,
    trigger: Trigger,
    row: &rows::Instance,
    expanded: &Expanded,
    template: &rows::Template,
) -> Context {
    Context {
        trigger,
        path: template.path.clone(),
        instance: InstanceFacts {
            name: name.to_owned(),
            architecture: row.architecture.clone(),
            privileged: is_true(&expanded.config, "security.privileged"),
            ephemeral: row.ephemeral,
        },
        config: expanded.config.clone(),
        devices: expanded.devices.clone(),
        properties: template.properties.clone(),
    }
}

/// The limits of a config, in the words of cgroups.
///
/// # Errors
/// When a value makes no sense on this host.
pub(crate) fn limits(host: &Host, config: &Config) -> Result<CgroupLimits, Error> {
    Ok(in_cgroup_words(Limits::resolve(config, &host.facts)?, &host.facts))
}

fn in_cgroup_words(limits: Limits, facts: &HostFacts) -> CgroupLimits {
    let (quota, weight) = match limits.allowance {
        None => (None, None),
        Some(Allowance::Soft(percent)) => (None, Some(u64::from(percent))),
        Some(Allowance::Hard { quota_us, period_us }) => (Some((quota_us, period_us)), None),
    };
    let soft = limits.memory_enforce == MemoryEnforce::Soft;
    CgroupLimits {
        cpus: match limits.cpus {
            Cpus::Any => None,
            Cpus::Count(count) => Some(cpu::list(&chosen(facts, count))),
            Cpus::Set(set) => Some(cpu::list(&set)),
        },
        cpu_quota: quota,
        cpu_weight: weight,
        memory: limits.memory.filter(|_| !soft),
        memory_high: limits.memory.filter(|_| soft),
        swap: match limits.swap {
            SwapRule::Unlimited => None,
            SwapRule::Forbidden => Some(0),
            SwapRule::Bytes(bytes) => Some(bytes),
        },
        processes: limits.processes,
    }
}

/// Which processors a count means. They are spread by chance, so that many small containers do not all
/// crowd on the first ones.
fn chosen(facts: &HostFacts, count: u32) -> Vec<u32> {
    use rand::seq::IndexedRandom as _;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    facts.cpus.sample(&mut rand::rng(), count).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> HostFacts {
        HostFacts { cpus: vec![0, 1, 2, 3], memory: 1 << 32 }
    }

    #[test]
    fn a_soft_memory_limit_is_not_a_hard_one() {
        let limits = Limits { memory: Some(5), memory_enforce: MemoryEnforce::Soft, ..Limits::default() };
        let words = in_cgroup_words(limits, &facts());
        assert_eq!((words.memory, words.memory_high), (None, Some(5)));
    }

    #[test]
    fn a_count_of_processors_is_a_set_of_so_many() {
        let limits = Limits { cpus: Cpus::Count(2), ..Limits::default() };
        let words = in_cgroup_words(limits, &facts());
        let set = words.cpus.unwrap_or_default();
        assert_eq!(
            cpu::cpus(&set).map(|cpus| matches!(cpus, Cpus::Set(set) if set.len() == 2)),
            Ok(true),
            "{set}"
        );
    }
}
