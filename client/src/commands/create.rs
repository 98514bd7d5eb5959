//! `create` and `launch`: one request; the daemon finds or builds the image.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use cabin_api::DevicesMap;
use cabin_api::instance::{InstanceSource, InstancesPost};
use cabin_client::{Client, Reply};
use serde_json::Value;

use super::Context;
use crate::cli::instance::{Console, Create, Launch};
use crate::{output, remote, words};

type Properties = BTreeMap<String, String>;

/// `create`.
pub async fn create(context: &Context, args: Create) -> anyhow::Result<()> {
    let client = context.client().await?;
    let (name, given) = make(context, &client, args, false).await?;
    if !given {
        output::line(format!("Instance name is: {name}"))?;
    }
    Ok(())
}

/// `launch`.
pub async fn launch(context: &Context, args: Launch) -> anyhow::Result<()> {
    let client = context.client().await?;
    let (name, given) = make(context, &client, args.create, true).await?;
    if !given {
        output::line(format!("Instance name is: {name}"))?;
    }
    if let Some(kind) = args.console {
        let console = Console { name, show_log: false, force: false, kind };
        super::console::attach(&client, &console).await?;
    }
    Ok(())
}

/// Makes it; gives its name and whether the person chose it.
async fn make(
    context: &Context,
    client: &Client,
    args: Create,
    start: bool,
) -> anyhow::Result<(String, bool)> {
    let mut post = request(&args, &words::piped_yaml()?)?;
    post.start = start;
    let overrides = words::devices(&args.device)?;
    if !overrides.is_empty() {
        override_devices(client, &mut post, overrides).await?;
    }
    let title = match post.name.as_str() {
        "" => "Creating the instance".to_owned(),
        name if start => format!("Launching {name}"),
        name => format!("Creating {name}"),
    };
    let reply = client.create_instance(&post).await?;
    let made = match &reply {
        Reply::Begun(operation) => named(operation.resources.get("instances")),
        Reply::Done(_) => None,
    };
    context.finish(client, reply, &title).await?;
    let given = !post.name.is_empty();
    Ok((if given { post.name } else { made.unwrap_or_default() }, given))
}

pub(super) fn named(addresses: Option<&Vec<String>>) -> Option<String> {
    let address = addresses?.first()?;
    let path = address.split('?').next()?;
    path.rsplit('/').next().map(str::to_owned)
}

/// The request for these words, over what the YAML says.
fn request(args: &Create, yaml: &str) -> anyhow::Result<InstancesPost> {
    if args.vm {
        bail!("virtual machines are not supported");
    }
    if args.target.is_some() {
        bail!("clusters are not supported yet");
    }
    let given = Value::Object(output::yaml::parse(yaml).context("cannot read the config on standard input")?);
    let mut post: InstancesPost =
        serde_json::from_value(given).context("cannot read the config on standard input")?;
    let (image, name) = match (&args.image, &args.name) {
        (image, None) if args.empty => (None, image.as_deref()),
        (_, Some(_)) if args.empty => bail!("with --empty the only word is the instance's name"),
        (image, name) => (image.as_deref(), name.as_deref()),
    };
    if let Some(name) = name {
        remote::local(name)?.clone_into(&mut post.name);
    }
    post.kind = "container".to_owned();
    post.source = source(image)?;
    for path in &args.environment_file {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        post.put.config.0.extend(words::environment(&text)?);
    }
    for word in &args.config {
        let (key, value) = words::pair(word)?;
        post.put.config.0.insert(key, value);
    }
    if let Some(network) = &args.network {
        let nic = [("type", "nic"), ("name", "eth0"), ("network", network)];
        post.put.devices.0.insert("eth0".to_owned(), properties(nic));
    }
    if let Some(pool) = &args.storage {
        let root = [("type", "disk"), ("path", "/"), ("pool", pool)];
        post.put.devices.0.insert("root".to_owned(), properties(root));
    }
    if args.no_profiles {
        post.put.profiles = Some(Vec::new());
    } else if !args.profile.is_empty() {
        let split = args.profile.iter().flat_map(|word| word.split(','));
        post.put.profiles = Some(split.map(str::to_owned).collect());
    }
    post.put.ephemeral |= args.ephemeral;
    if let Some(size) = &args.size {
        post.instance_type.clone_from(size);
    }
    if let Some(description) = &args.description {
        post.put.description.clone_from(description);
    }
    Ok(post)
}

fn properties<const N: usize>(pairs: [(&str, &str); N]) -> Properties {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// What it is made from: nothing, a fingerprint, or an alias that the daemon finds or builds.
pub(super) fn source(image: Option<&str>) -> anyhow::Result<InstanceSource> {
    let Some(image) = image else {
        return Ok(InstanceSource { kind: "none".to_owned(), ..InstanceSource::default() });
    };
    let image = remote::image(image)?;
    let mut source = InstanceSource { kind: "image".to_owned(), ..InstanceSource::default() };
    if is_fingerprint(image) {
        image.clone_into(&mut source.fingerprint);
    } else {
        image.clone_into(&mut source.alias);
    }
    Ok(source)
}

/// Whether a word can only be (the beginning of) a fingerprint.
pub fn is_fingerprint(word: &str) -> bool {
    (12..=64).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Puts `-d` over the instance's devices, or over copies of the profiles' devices.
async fn override_devices(
    client: &Client,
    post: &mut InstancesPost,
    overrides: BTreeMap<String, Properties>,
) -> anyhow::Result<()> {
    let mut inherited = DevicesMap::default();
    let default = vec!["default".to_owned()];
    for profile in post.put.profiles.as_ref().unwrap_or(&default) {
        inherited.0.extend(client.profile(profile).await?.value.devices.0);
    }
    lay_over(&mut post.put.devices, &inherited, overrides);
    Ok(())
}

fn lay_over(own: &mut DevicesMap, inherited: &DevicesMap, overrides: BTreeMap<String, Properties>) {
    for (name, properties) in overrides {
        let base = || inherited.0.get(&name).cloned().unwrap_or_default();
        let device = own.0.entry(name.clone()).or_insert_with(base);
        device.extend(properties);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Create {
        match Cli::parse_from(line.split(' ')).command {
            Command::Launch(launch) => launch.0.create,
            Command::Create(create) => create.0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_become_a_request() {
        let line = "cabin launch images:debian/12 web -e -p a -p b,c -c limits.cpu=2 -n br0 -s fast";
        let post = request(&parse(line), "").unwrap();
        assert_eq!((post.name.as_str(), post.source.alias.as_str()), ("web", "debian/12"));
        assert_eq!(post.put.profiles.unwrap(), ["a", "b", "c"]);
        assert!(post.put.ephemeral);
        assert_eq!(post.put.config.0["limits.cpu"], "2");
        assert_eq!(post.put.devices.0["eth0"]["network"], "br0");
        assert_eq!(post.put.devices.0["root"]["pool"], "fast");
    }

    #[test]
    fn words_go_over_the_yaml() {
        let yaml = "config: {limits.cpu: 1, user.a: b}\nprofiles: [x]\ndescription: old\n";
        let post = request(&parse("cabin create img -c limits.cpu=4"), yaml).unwrap();
        assert_eq!(post.put.config.0["limits.cpu"], "4");
        assert_eq!(post.put.config.0["user.a"], "b");
        assert_eq!(post.put.profiles.as_deref(), Some(&["x".to_owned()][..]));
        assert_eq!(post.put.description, "old");
    }

    #[test]
    fn without_profiles_means_none_and_not_default() {
        assert_eq!(request(&parse("cabin create img"), "").unwrap().put.profiles, None);
        let none = request(&parse("cabin create img --no-profiles"), "").unwrap();
        assert_eq!(none.put.profiles, Some(Vec::new()));
    }

    #[test]
    fn empty_takes_a_name_and_no_image() {
        let post = request(&parse("cabin create --empty web"), "").unwrap();
        assert_eq!((post.name.as_str(), post.source.kind.as_str()), ("web", "none"));
        assert!(request(&parse("cabin create --empty img web"), "").is_err());
    }

    #[test]
    fn fingerprints_are_told_from_aliases() {
        assert!(is_fingerprint("0123456789ab"));
        assert!(!is_fingerprint("debian/12"));
        assert!(!is_fingerprint("cafe"));
        assert_eq!(source(Some("deadbeefcafe")).unwrap().fingerprint, "deadbeefcafe");
        assert!(source(Some("ubuntu:24.04")).is_err());
    }

    #[test]
    fn overrides_keep_the_rest_of_an_inherited_device() {
        let mut own = DevicesMap::default();
        let root = properties([("type", "disk"), ("path", "/"), ("pool", "default")]);
        let inherited = DevicesMap([("root".to_owned(), root)].into());
        lay_over(&mut own, &inherited, words::devices(&["root,size=5GiB".to_owned()]).unwrap());
        assert_eq!(own.0["root"]["pool"], "default");
        assert_eq!(own.0["root"]["size"], "5GiB");
    }
}
