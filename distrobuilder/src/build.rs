//! The whole way from a definition to image files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cabin_images::{Compression, Metadata, Template};
use cabin_sys::command::Programs;
use cabin_sys::dir::HostDir;

use crate::cache::{Place, Staging};
use crate::definition::{Definition, Downloader, PackageAction, Trigger};
use crate::error::{Error, Result, io};
use crate::manager::Manager;
use crate::{generator, inside, shipped, source};

/// How an image is cut into files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One tarball.
    Unified,
    /// A tarball of metadata and a squashfs.
    Split,
}

/// How to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// The layout.
    pub layout: Layout,
    /// How the unified tarball is compressed.
    pub compression: Compression,
    /// What is set over the definition: `image.release` and the like.
    pub set: Vec<(String, String)>,
    /// Where builds happen and what was built is kept.
    pub cache: PathBuf,
    /// The distrobuilder binary, which scripts inside the tree run under.
    pub helper: PathBuf,
}

/// How far a build is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: String,
    /// How far it is …
    pub done: u64,
    /// … of so much.
    pub total: u64,
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The unified tarball, or that of metadata.
    pub meta: PathBuf,
    /// The squashfs of a split image.
    pub rootfs: Option<PathBuf>,
    /// What the image is called: `debian/12`.
    pub alias: String,
    /// Whether it had been built before.
    pub cached: bool,
}

/// Builds an image and puts its files into `out`. `what` is the name of a shipped definition, or the path of
/// a file (it then has a `/` in front, or ends in `.yaml`).
///
/// # Errors
/// When the definition is refused, a step fails, or the files cannot be written. Nothing is left of a
/// build that failed.
pub fn build(what: &str, out: &Path, options: &Options, on: &mut dyn FnMut(&Progress)) -> Result<Built> {
    let (mut definition, alias) = load(what, &options.set)?;
    let now = jiff::Timestamp::now();
    if definition.image.serial.is_empty() {
        definition.image.serial = now.strftime("%Y%m%d_%H:%M").to_string();
    }
    HostDir::ensure(out, 0o755).map_err(io("make", out))?;
    on(&Progress { step: "waiting for the cache".to_owned(), done: 0, total: TOTAL });
    let place = Place::lock(&options.cache, &definition, options)?;
    if let Some(built) = place.recall(now.as_second(), out)? {
        on(&Progress { step: "built before".to_owned(), done: TOTAL, total: TOTAL });
        return Ok(built);
    }
    let staging = place.staging()?;
    let made =
        Work { definition: &definition, options, programs: Programs::find(), on, now: now.as_second() }
            .run(&staging)
            .and_then(|(meta, rootfs)| {
                let expires = now.as_second().saturating_add(definition.lifetime().unwrap_or(0));
                place.remember(&staging, &meta, rootfs.as_deref(), &alias, expires)
            });
    let cleaned = staging.destroy();
    made?;
    cleaned?;
    let built = place.recall(now.as_second(), out)?;
    built.map(|built| Built { cached: false, ..built }).ok_or_else(|| Error::Io {
        act: "find the built files in",
        path: options.cache.clone(),
        source: std::io::Error::from(std::io::ErrorKind::NotFound),
    })
}

fn load(what: &str, set: &[(String, String)]) -> Result<(Definition, String)> {
    if !what.starts_with(['/', '.']) && !what.ends_with(".yaml") {
        return Ok((shipped::find(what, set)?, what.to_owned()));
    }
    let text = std::fs::read_to_string(what).map_err(io("read", what))?;
    let definition = Definition::parse(what, &text, set)?;
    let image = &definition.image;
    let parts = [image.distribution.as_str(), image.release.as_str(), image.variant.as_str()];
    let alias =
        parts.into_iter().filter(|part| !part.is_empty() && *part != "default").collect::<Vec<_>>().join("/");
    Ok((definition, alias))
}

/// Steps are counted in percent of the whole.
const TOTAL: u64 = 100;
const SOURCE_ENDS: u64 = 70;
const PACK_BEGINS: u64 = 80;

struct Work<'a> {
    definition: &'a Definition,
    options: &'a Options,
    programs: Programs,
    on: &'a mut dyn FnMut(&Progress),
    now: i64,
}

impl Work<'_> {
    fn step(&mut self, step: impl Into<String>, done: u64) {
        (self.on)(&Progress { step: step.into(), done, total: TOTAL });
    }

    /// Builds in `staging`; gives the names of the files made there.
    fn run(&mut self, staging: &Staging<'_>) -> Result<(String, Option<String>)> {
        let tree =
            staging.dir.create_dir("rootfs", 0o755).map_err(io("make", staging.dir.path().join("rootfs")))?;
        self.source(&tree)?;
        // mmdebstrap may have replaced the directory we hold.
        let tree = staging.dir.open_dir("rootfs").map_err(io("open", staging.dir.path().join("rootfs")))?;
        self.actions(&tree, Trigger::PostUnpack)?;
        self.packages(&tree)?;
        self.actions(&tree, Trigger::PostPackages)?;
        let templates = self.files(&tree)?;
        self.actions(&tree, Trigger::PostFiles)?;
        self.pack(staging, &tree, templates)
    }

    fn source(&mut self, tree: &HostDir) -> Result<()> {
        let (definition, on) = (self.definition, &mut self.on);
        match definition.source.downloader {
            Downloader::Busybox => {
                on(&Progress { step: "installing busybox".to_owned(), done: 5, total: TOTAL });
                source::busybox::fill(&self.programs, tree)
            }
            Downloader::Debootstrap => {
                let mut hear = |step: &str, percent: u64| {
                    on(&Progress { step: step.to_owned(), done: percent * SOURCE_ENDS / 100, total: TOTAL });
                };
                source::debootstrap::fill(
                    &self.programs,
                    &self.options.helper,
                    definition,
                    tree.path(),
                    &mut hear,
                )?;
                // What --aptopt leaves behind is ours alone.
                let left = "etc/apt/apt.conf.d/99mmdebstrap";
                tree.remove_file(left).map_err(io("remove", left))?;
                forget_host(tree)
            }
        }
    }

    fn actions(&mut self, tree: &HostDir, trigger: Trigger) -> Result<()> {
        let definition = self.definition;
        let done = SOURCE_ENDS
            + match trigger {
                Trigger::PostUnpack => 1,
                Trigger::PostUpdate => 3,
                Trigger::PostPackages => 5,
                Trigger::PostFiles => 8,
            };
        for action in &definition.actions {
            if action.trigger != trigger || !action.passes(&definition.image) {
                continue;
            }
            let what = format!("a {} action", trigger.name());
            self.step(format!("running {what}"), done);
            let script =
                if action.pongo { definition.fill(&what, &action.action)? } else { action.action.clone() };
            inside::run(&self.options.helper, tree, &what, &script)?;
        }
        Ok(())
    }

    /// What mmdebstrap has not done already: updates, late sets, removals.
    fn packages(&mut self, tree: &HostDir) -> Result<()> {
        let definition = self.definition;
        let Some(packages) = &definition.packages else { return Ok(()) };
        let manager = Manager(packages.manager);
        let first_tree = definition.source.downloader == Downloader::Debootstrap;
        let late: Vec<_> = packages
            .sets
            .iter()
            .filter(|set| set.passes(&definition.image))
            .filter(|set| !(first_tree && set.early && set.action == PackageAction::Install))
            .collect();
        if !packages.update && late.is_empty() {
            return Ok(());
        }
        self.step("installing further packages", SOURCE_ENDS + 2);
        let guard = Guard::raise(tree)?;
        let helper = &self.options.helper;
        let mut worked = inside::run(
            helper,
            tree,
            "updating packages",
            &if packages.update { manager.update() } else { manager.refresh() },
        );
        if worked.is_ok() && packages.update {
            worked = self.actions(tree, Trigger::PostUpdate);
        }
        for set in late {
            worked = worked.and_then(|()| match set.action {
                PackageAction::Install => {
                    inside::run(helper, tree, "installing packages", &manager.install(&set.packages))
                }
                PackageAction::Remove => {
                    inside::run(helper, tree, "removing packages", &manager.remove(&set.packages))
                }
            });
        }
        if worked.is_ok() && packages.cleanup {
            worked = inside::run(helper, tree, "cleaning up after packages", &manager.cleanup());
        }
        guard.lower(tree)?;
        worked
    }

    fn files(&mut self, tree: &HostDir) -> Result<Vec<Template>> {
        self.step("writing files", SOURCE_ENDS + 7);
        let definition = self.definition;
        let mut templates: BTreeMap<String, Template> = BTreeMap::new();
        for entry in definition.files.iter().filter(|entry| entry.passes(&definition.image)) {
            if let Some(template) = generator::run(definition, entry, tree)? {
                templates.insert(template.path.clone(), template);
            }
        }
        Ok(templates.into_values().collect())
    }

    fn pack(
        &mut self,
        staging: &Staging<'_>,
        tree: &HostDir,
        templates: Vec<Template>,
    ) -> Result<(String, Option<String>)> {
        let metadata = self.metadata(templates)?;
        let made = |name: &str| {
            staging.dir.create_file(name, 0o644).map_err(io("make", staging.dir.path().join(name)))
        };
        let wrong = |source| Error::Pack { source };
        self.step("packing", PACK_BEGINS);
        let files = match self.options.layout {
            Layout::Unified => {
                let name = format!("image{}", self.options.compression.extension());
                cabin_images::pack_unified(
                    &cabin_images::TreeSource::Plain(tree.path().to_owned()),
                    &metadata,
                    &mut made(&name)?,
                    self.options.compression,
                )
                .map_err(wrong)?;
                (name, None)
            }
            Layout::Split => {
                let (meta, rootfs) = ("incus.tar.gz".to_owned(), "rootfs.squashfs".to_owned());
                cabin_images::pack_metadata(&metadata, &mut made(&meta)?).map_err(wrong)?;
                let path = staging.dir.path().join(&rootfs);
                cabin_images::pack_squashfs(&self.programs, tree.path(), &path, self.now).map_err(wrong)?;
                (meta, Some(rootfs))
            }
        };
        self.step("packed", TOTAL);
        Ok(files)
    }

    fn metadata(&self, templates: Vec<Template>) -> Result<Metadata> {
        let definition = self.definition;
        let image = &definition.image;
        let mut properties = BTreeMap::new();
        for (key, value) in [
            ("os", image.distribution.clone()),
            ("release", image.release.clone()),
            ("architecture", definition.mapped_architecture()),
            ("variant", image.variant.clone()),
            ("description", definition.fill("image.description", &image.description)?),
            ("name", definition.fill("image.name", &image.name)?),
            ("serial", image.serial.clone()),
        ] {
            if !value.is_empty() {
                properties.insert(key.to_owned(), value);
            }
        }
        Ok(Metadata {
            architecture: image.architecture.clone(),
            creation_date: self.now,
            expiry_date: self.now.saturating_add(definition.lifetime().unwrap_or(0)),
            properties,
            templates,
        })
    }
}

/// Removes what mmdebstrap copied from the host so that package scripts could work.
fn forget_host(tree: &HostDir) -> Result<()> {
    for name in ["etc/hostname", "etc/resolv.conf"] {
        let (here, there) = (tree.read(name, 64 * 1024), std::fs::read(Path::new("/").join(name)));
        if matches!((here, there), (Ok(here), Ok(there)) if here == there) {
            tree.remove_file(name).map_err(io("remove", name))?;
        }
    }
    Ok(())
}

/// What stands in the tree while packages are installed: the host's name servers, and a policy that no
/// service is started.
struct Guard {
    resolver: bool,
}

const POLICY: &str = "usr/sbin/policy-rc.d";
const RESOLVER: &str = "etc/resolv.conf";

impl Guard {
    fn raise(tree: &HostDir) -> Result<Guard> {
        tree.replace(POLICY, b"#!/bin/sh\nexit 101\n", 0o755).map_err(io("write", POLICY))?;
        // A link (to the stub of resolved) is set aside and comes back.
        let resolver = tree.exists(RESOLVER).map_err(io("look for", RESOLVER))?;
        if resolver {
            tree.rename(RESOLVER, "etc/resolv.conf.kept").map_err(io("set aside", RESOLVER))?;
        }
        let host = std::fs::read("/etc/resolv.conf").map_err(io("read", "/etc/resolv.conf"))?;
        tree.replace(RESOLVER, &host, 0o644).map_err(io("write", RESOLVER))?;
        Ok(Guard { resolver })
    }

    fn lower(self, tree: &HostDir) -> Result<()> {
        tree.remove_file(POLICY).map_err(io("remove", POLICY))?;
        tree.remove_file(RESOLVER).map_err(io("remove", RESOLVER))?;
        if self.resolver {
            tree.rename("etc/resolv.conf.kept", RESOLVER).map_err(io("bring back", RESOLVER))?;
        }
        Ok(())
    }
}
