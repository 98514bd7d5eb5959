//! Every route, once: method, address, handler, and what the description of the API says about it.
//!
//! The router and the OpenAPI document are both made from this table, so neither can lack what the other has.

use std::future::Future;
use std::pin::Pin;

use http::Method;

use crate::call::Call;
use crate::error::Fault;
use crate::handlers::backups;
use crate::handlers::warnings;
use crate::handlers::{
    aliases, images, instance_parts, instances, internal, metadata, networks, operations, profiles, projects,
    server, snapshots, storage, volume_backups, volume_snapshots, volumes,
};
use crate::reply::Reply;
use crate::shapes::{self, Shape};
use crate::{console, events, exec, files};

/// What a handler comes to.
pub type Answer = Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>;

/// One route.
#[derive(Clone)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The address; `{name}` is one part of it, `{*name}` the rest.
    pub path: &'static str,
    /// What it does.
    pub run: fn(Call) -> Answer,
    /// One line for people.
    pub about: &'static str,
    /// The JSON it takes.
    pub takes: Option<Shape>,
    /// What it answers.
    pub gives: Gives,
    /// The query arguments it knows besides `project`.
    pub query: Vec<&'static str>,
    /// Whether the description leaves it out: a daemon that serves users has no such address.
    pub hidden: bool,
}

/// What a route answers.
#[derive(Clone, Copy)]
pub enum Gives {
    /// Nothing but success.
    Nothing,
    /// An object.
    Object(Shape),
    /// Addresses, or objects with `recursion`.
    List(Shape),
    /// The address of what was made.
    Created,
    /// An operation that goes on.
    Operation,
    /// Bytes.
    Bytes,
    /// A switch of protocols.
    Upgrade,
}

impl Route {
    fn takes(mut self, shape: Shape) -> Route {
        self.takes = Some(shape);
        self
    }

    fn object(mut self, shape: Shape) -> Route {
        self.gives = Gives::Object(shape);
        self
    }

    fn list(mut self, shape: Shape) -> Route {
        self.gives = Gives::List(shape);
        self.query.extend(["recursion", "filter"]);
        self
    }

    fn gives(mut self, gives: Gives) -> Route {
        self.gives = gives;
        self
    }

    fn hidden(mut self) -> Route {
        self.hidden = true;
        self
    }

    fn query(mut self, names: &[&'static str]) -> Route {
        self.query.extend(names);
        self
    }
}

fn route(method: Method, path: &'static str, run: fn(Call) -> Answer, about: &'static str) -> Route {
    Route { method, path, run, about, takes: None, gives: Gives::Nothing, query: Vec::new(), hidden: false }
}

/// A row of the table.
macro_rules! row {
    ($method:ident $path:literal, $run:path, $about:literal) => {
        route(Method::$method, $path, |call| Box::pin($run(call)), $about)
    };
}

/// All routes.
#[must_use]
pub fn table() -> Vec<Route> {
    let mut rows = of_server();
    rows.extend(of_instances());
    rows.extend(of_instance_parts());
    rows.extend(of_snapshots());
    rows.extend(of_images());
    rows.extend(of_networks());
    rows.extend(of_profiles());
    rows.extend(of_storage());
    rows.extend(of_volumes());
    rows.extend(of_operations());
    rows
}

fn of_server() -> Vec<Route> {
    vec![
        row!(GET "/", server::versions, "List the versions of the API").object(shapes::VERSIONS),
        row!(GET "/1.0", server::show, "Get the server: what it can do and what it runs on")
            .object(shapes::SERVER),
        row!(PUT "/1.0", server::update, "Replace the server's config").takes(shapes::SERVER_PUT),
        row!(PATCH "/1.0", server::patch, "Change some of the server's config").takes(shapes::SERVER_PUT),
        row!(GET "/1.0/openapi.json", server::describe, "Get this description").gives(Gives::Bytes),
        row!(GET "/1.0/resources", server::resources, "Get the host's hardware").object(shapes::ANY),
        row!(GET "/1.0/metadata/configuration", server::configuration, "Get every config key there is")
            .object(shapes::ANY),
        row!(GET "/1.0/warnings", warnings::list, "List warnings").list(shapes::WARNING),
        row!(GET "/1.0/warnings/{uuid}", warnings::show, "Get a warning").object(shapes::WARNING),
        row!(PUT "/1.0/warnings/{uuid}", warnings::update, "Acknowledge a warning, or take that back")
            .takes(shapes::WARNING_PUT),
        row!(PATCH "/1.0/warnings/{uuid}", warnings::update, "Acknowledge a warning, or take that back")
            .takes(shapes::WARNING_PUT),
        row!(DELETE "/1.0/warnings/{uuid}", warnings::delete, "Delete a warning"),
        row!(GET "/1.0/cluster", server::cluster, "Get the cluster (there is none)").object(shapes::CLUSTER),
        row!(GET "/1.0/certificates", server::nothing, "List trusted clients").list(shapes::ANY),
        row!(POST "/1.0/certificates", server::no_trust, "Trust a client").takes(shapes::ANY),
        row!(GET "/1.0/certificates/{fingerprint}", server::no_certificate, "Get a trusted client")
            .object(shapes::ANY),
        row!(PUT "/1.0/certificates/{fingerprint}", server::no_certificate, "Replace a trusted client's config")
            .takes(shapes::ANY),
        row!(PATCH "/1.0/certificates/{fingerprint}", server::no_certificate, "Change some of a trusted client's config")
            .takes(shapes::ANY),
        row!(DELETE "/1.0/certificates/{fingerprint}", server::no_certificate, "Stop trusting a client"),
        row!(GET "/1.0/projects", projects::list, "List projects").list(shapes::PROJECT),
        row!(GET "/1.0/projects/{name}", projects::show, "Get a project").object(shapes::PROJECT),
        row!(PUT "/1.0/projects/{name}", projects::update, "Replace a project's config")
            .takes(shapes::CONFIG_PUT),
        row!(PATCH "/1.0/projects/{name}", projects::patch, "Change some of a project's config")
            .takes(shapes::CONFIG_PUT),
        row!(GET "/1.0/events", events::listen, "Listen to events (websocket)")
            .gives(Gives::Upgrade)
            .query(&["type", "all-projects"]),
        row!(GET "/internal/ready", internal::ready, "Whether the daemon has taken up its instances"),
        row!(PUT "/internal/shutdown", internal::shutdown, "Stop every instance, then the daemon"),
        row!(GET "/internal/doctor", internal::doctor, "Check what this host can do").object(shapes::ANY),
        row!(POST "/internal/doctor", internal::raise, "Raise the kernel's limits for many containers")
            .object(shapes::ANY),
        row!(GET "/internal/audit", internal::audit, "List what is left over on this host").list(shapes::ANY),
        row!(GET "/internal/images", internal::images, "List the images that can be built here")
            .list(shapes::ANY),
        row!(GET "/internal/fault", internal::fault, "Get the fault points passed (daemons under test only)")
            .object(shapes::ANY)
            .hidden(),
        row!(PUT "/internal/clock", internal::set_clock, "Set the clock (daemons under test only)")
            .takes(shapes::ANY)
            .hidden(),
        row!(PUT "/internal/fault", internal::arm_fault, "Make a step fail (daemons under test only)")
            .takes(shapes::ANY)
            .hidden(),
    ]
}

fn of_instances() -> Vec<Route> {
    vec![
        row!(GET "/1.0/instances", instances::list, "List instances")
            .list(shapes::INSTANCE)
            .query(&["all-projects", "fields"]),
        row!(POST "/1.0/instances", instances::create, "Create an instance")
            .takes(shapes::INSTANCES_POST)
            .gives(Gives::Operation),
        row!(PUT "/1.0/instances", instances::change_all, "Start, stop, restart, freeze or unfreeze all")
            .takes(shapes::INSTANCES_PUT)
            .gives(Gives::Operation),
        row!(GET "/1.0/instances/{name}", instances::show, "Get an instance")
            .object(shapes::INSTANCE)
            .query(&["recursion"]),
        row!(PUT "/1.0/instances/{name}", instances::update, "Replace an instance's config")
            .takes(shapes::INSTANCE_PUT)
            .gives(Gives::Operation),
        row!(PATCH "/1.0/instances/{name}", instances::patch, "Change some of an instance's config")
            .takes(shapes::INSTANCE_PUT),
        row!(POST "/1.0/instances/{name}", instances::rename, "Rename an instance")
            .takes(shapes::INSTANCE_POST)
            .gives(Gives::Operation),
        row!(DELETE "/1.0/instances/{name}", instances::delete, "Delete an instance")
            .gives(Gives::Operation)
            .query(&["force"]),
        row!(POST "/1.0/instances/{name}/rebuild", crate::handlers::rebuild::create, "Give an instance a new root filesystem")
            .takes(shapes::INSTANCE_REBUILD_POST)
            .gives(Gives::Operation),
        row!(GET "/1.0/instances/{name}/state", instances::state, "Get what an instance does now")
            .object(shapes::INSTANCE_STATE),
        row!(GET "/1.0/instances/{name}/diff", instances::diff, "Get which files differ between two states of an instance")
            .object(shapes::INSTANCE_DIFF)
            .query(&["from", "to"]),
        row!(PUT "/1.0/instances/{name}/state", instances::change_state, "Start, stop, restart, freeze or unfreeze")
            .takes(shapes::INSTANCE_STATE_PUT)
            .gives(Gives::Operation),
        row!(POST "/1.0/instances/{name}/exec", exec::start, "Run a command")
            .takes(shapes::EXEC_POST)
            .gives(Gives::Operation),
        row!(POST "/1.0/instances/{name}/console", console::attach, "Take part in the console")
            .takes(shapes::CONSOLE_POST)
            .gives(Gives::Operation),
        row!(GET "/1.0/instances/{name}/files", files::get, "Read a file, list a directory")
            .gives(Gives::Bytes)
            .query(&["path"]),
        row!(POST "/1.0/instances/{name}/files", files::post, "Write a file, make a directory or symlink")
            .query(&["path"]),
        row!(DELETE "/1.0/instances/{name}/files", files::delete, "Delete a file or directory").query(&["path"]),
        row!(GET "/1.0/instances/{name}/sftp", files::sftp, "Talk SFTP to the instance's files")
            .gives(Gives::Upgrade),
    ]
}

fn of_instance_parts() -> Vec<Route> {
    vec![
        row!(GET "/1.0/instances/{name}/console", instance_parts::console_log, "Get what the console said")
            .gives(Gives::Bytes),
        row!(DELETE "/1.0/instances/{name}/console", instance_parts::clear_console_log, "Forget what the console said"),
        row!(GET "/1.0/instances/{name}/logs", instance_parts::logs, "List log files").object(shapes::ADDRESSES),
        row!(GET "/1.0/instances/{name}/logs/{file}", instance_parts::log, "Get a log file").gives(Gives::Bytes),
        row!(DELETE "/1.0/instances/{name}/logs/{file}", instance_parts::delete_log, "Delete a log file"),
        row!(GET "/1.0/instances/{name}/logs/exec-output", instance_parts::outputs, "List recorded outputs")
            .object(shapes::ADDRESSES),
        row!(GET "/1.0/instances/{name}/logs/exec-output/{file}", instance_parts::output, "Get a recorded output")
            .gives(Gives::Bytes),
        row!(DELETE "/1.0/instances/{name}/logs/exec-output/{file}", instance_parts::delete_output, "Delete a recorded output"),
        row!(GET "/1.0/instances/{name}/metadata", metadata::show, "Get what an instance's image says about itself")
            .object(shapes::IMAGE_METADATA),
        row!(PUT "/1.0/instances/{name}/metadata", metadata::update, "Replace what an instance's image says about itself")
            .takes(shapes::IMAGE_METADATA),
        row!(PATCH "/1.0/instances/{name}/metadata", metadata::patch, "Change some of what an instance's image says about itself")
            .takes(shapes::IMAGE_METADATA),
        row!(GET "/1.0/instances/{name}/metadata/templates", metadata::templates, "List templates, or get one")
            .object(shapes::NAMES)
            .query(&["path"]),
        row!(POST "/1.0/instances/{name}/metadata/templates", metadata::write_template, "Make a template, or replace it")
            .query(&["path"]),
        row!(DELETE "/1.0/instances/{name}/metadata/templates", metadata::delete_template, "Delete a template")
            .query(&["path"]),
        row!(GET "/1.0/instances/{name}/backups", backups::list, "List backups").list(shapes::BACKUP),
        row!(POST "/1.0/instances/{name}/backups", backups::create, "Make a backup; sent at once to who accepts application/octet-stream")
            .takes(shapes::BACKUPS_POST)
            .gives(Gives::Operation),
        row!(GET "/1.0/instances/{name}/backups/{backup}", backups::show, "Get a backup").object(shapes::BACKUP),
        row!(POST "/1.0/instances/{name}/backups/{backup}", backups::rename, "Rename a backup")
            .takes(shapes::RENAME)
            .gives(Gives::Operation),
        row!(DELETE "/1.0/instances/{name}/backups/{backup}", backups::delete, "Delete a backup")
            .gives(Gives::Operation),
        row!(GET "/1.0/instances/{name}/backups/{backup}/export", backups::fetch, "Get a backup's file")
            .gives(Gives::Bytes),
    ]
}

fn of_snapshots() -> Vec<Route> {
    vec![
        row!(GET "/1.0/instances/{name}/snapshots", snapshots::list, "List snapshots").list(shapes::SNAPSHOT),
        row!(POST "/1.0/instances/{name}/snapshots", snapshots::create, "Take a snapshot")
            .takes(shapes::SNAPSHOTS_POST)
            .gives(Gives::Operation),
        row!(GET "/1.0/instances/{name}/snapshots/{snapshot}", snapshots::show, "Get a snapshot")
            .object(shapes::SNAPSHOT),
        row!(PUT "/1.0/instances/{name}/snapshots/{snapshot}", snapshots::update, "Change when a snapshot is deleted")
            .takes(shapes::SNAPSHOT_PUT)
            .gives(Gives::Operation),
        row!(PATCH "/1.0/instances/{name}/snapshots/{snapshot}", snapshots::update, "Change when a snapshot is deleted")
            .takes(shapes::SNAPSHOT_PUT)
            .gives(Gives::Operation),
        row!(POST "/1.0/instances/{name}/snapshots/{snapshot}", snapshots::rename, "Rename a snapshot")
            .takes(shapes::SNAPSHOT_POST)
            .gives(Gives::Operation),
        row!(DELETE "/1.0/instances/{name}/snapshots/{snapshot}", snapshots::delete, "Delete a snapshot")
            .gives(Gives::Operation),
    ]
}

fn of_images() -> Vec<Route> {
    vec![
        row!(GET "/1.0/images", images::list, "List images").list(shapes::IMAGE).query(&["all-projects"]),
        row!(POST "/1.0/images", images::create, "Add an image: a file, a form of two files, or JSON")
            .takes(shapes::IMAGES_POST)
            .gives(Gives::Operation),
        row!(GET "/1.0/images/{fingerprint}", images::show, "Get an image").object(shapes::IMAGE),
        row!(PUT "/1.0/images/{fingerprint}", images::update, "Replace an image's properties")
            .takes(shapes::IMAGE_PUT),
        row!(PATCH "/1.0/images/{fingerprint}", images::patch, "Change some of an image's properties")
            .takes(shapes::IMAGE_PUT),
        row!(DELETE "/1.0/images/{fingerprint}", images::delete, "Delete an image").gives(Gives::Operation),
        row!(GET "/1.0/images/{fingerprint}/export", images::export, "Get an image's files")
            .gives(Gives::Bytes),
        row!(POST "/1.0/images/{fingerprint}/export", images::not_yet, "Send an image to a server (not built yet)"),
        row!(POST "/1.0/images/{fingerprint}/refresh", images::not_yet, "Refresh an image (not built yet)"),
        row!(POST "/1.0/images/{fingerprint}/secret", images::not_yet, "Share an image once (not built yet)"),
        row!(GET "/1.0/images/aliases", aliases::list, "List aliases").list(shapes::ALIAS),
        row!(POST "/1.0/images/aliases", aliases::create, "Add an alias")
            .takes(shapes::ALIAS)
            .gives(Gives::Created),
        row!(GET "/1.0/images/aliases/{*name}", aliases::show, "Get an alias").object(shapes::ALIAS),
        row!(PUT "/1.0/images/aliases/{*name}", aliases::update, "Replace an alias").takes(shapes::ALIAS_PUT),
        row!(PATCH "/1.0/images/aliases/{*name}", aliases::patch, "Change an alias").takes(shapes::ALIAS_PUT),
        row!(POST "/1.0/images/aliases/{*name}", aliases::rename, "Rename an alias")
            .takes(shapes::RENAME)
            .gives(Gives::Created),
        row!(DELETE "/1.0/images/aliases/{*name}", aliases::delete, "Delete an alias"),
    ]
}

fn of_networks() -> Vec<Route> {
    vec![
        row!(GET "/1.0/networks", networks::list, "List networks")
            .list(shapes::NETWORK)
            .query(&["all-projects"]),
        row!(POST "/1.0/networks", networks::create, "Create a network")
            .takes(shapes::NETWORKS_POST)
            .gives(Gives::Created),
        row!(GET "/1.0/networks/{name}", networks::show, "Get a network").object(shapes::NETWORK),
        row!(PUT "/1.0/networks/{name}", networks::update, "Replace a network's config")
            .takes(shapes::CONFIG_PUT),
        row!(PATCH "/1.0/networks/{name}", networks::patch, "Change some of a network's config")
            .takes(shapes::CONFIG_PUT),
        row!(POST "/1.0/networks/{name}", networks::rename, "Rename a network")
            .takes(shapes::RENAME)
            .gives(Gives::Created),
        row!(DELETE "/1.0/networks/{name}", networks::delete, "Delete a network"),
        row!(GET "/1.0/networks/{name}/leases", networks::leases, "List addresses given out")
            .object(shapes::LEASES),
        row!(GET "/1.0/network-allocations", networks::allocations, "List the addresses that networks and instances have")
            .object(shapes::ALLOCATIONS)
            .query(&["all-projects"]),
        row!(GET "/1.0/networks/{name}/state", networks::state, "Get what a network's interface does")
            .object(shapes::NETWORK_STATE),
    ]
}

fn of_profiles() -> Vec<Route> {
    vec![
        row!(GET "/1.0/profiles", profiles::list, "List profiles")
            .list(shapes::PROFILE)
            .query(&["all-projects"]),
        row!(POST "/1.0/profiles", profiles::create, "Create a profile")
            .takes(shapes::PROFILES_POST)
            .gives(Gives::Created),
        row!(GET "/1.0/profiles/{name}", profiles::show, "Get a profile").object(shapes::PROFILE),
        row!(PUT "/1.0/profiles/{name}", profiles::update, "Replace a profile").takes(shapes::PROFILE_PUT),
        row!(PATCH "/1.0/profiles/{name}", profiles::patch, "Change some of a profile")
            .takes(shapes::PROFILE_PUT),
        row!(POST "/1.0/profiles/{name}", profiles::rename, "Rename a profile")
            .takes(shapes::RENAME)
            .gives(Gives::Created),
        row!(DELETE "/1.0/profiles/{name}", profiles::delete, "Delete a profile"),
    ]
}

fn of_storage() -> Vec<Route> {
    vec![
        row!(GET "/1.0/storage-pools", storage::list, "List storage pools").list(shapes::POOL),
        row!(POST "/1.0/storage-pools", storage::create, "Create a storage pool")
            .takes(shapes::POOLS_POST)
            .gives(Gives::Created),
        row!(GET "/1.0/storage-pools/{name}", storage::show, "Get a storage pool").object(shapes::POOL),
        row!(PUT "/1.0/storage-pools/{name}", storage::update, "Replace a pool's config")
            .takes(shapes::CONFIG_PUT),
        row!(PATCH "/1.0/storage-pools/{name}", storage::patch, "Change some of a pool's config")
            .takes(shapes::CONFIG_PUT),
        row!(DELETE "/1.0/storage-pools/{name}", storage::delete, "Delete a storage pool"),
        row!(GET "/1.0/storage-pools/{name}/resources", storage::resources, "Get what a pool has left")
            .object(shapes::POOL_RESOURCES),
    ]
}

fn of_volumes() -> Vec<Route> {
    vec![
        row!(GET "/1.0/storage-pools/{name}/volumes", volumes::list, "List a pool's volumes").list(shapes::VOLUME),
        row!(POST "/1.0/storage-pools/{name}/volumes", volumes::create, "Create a custom volume")
            .takes(shapes::VOLUMES_POST)
            .gives(Gives::Created),
        row!(GET "/1.0/storage-pools/{name}/volumes/{type}", volumes::list_of_type, "List volumes of a type")
            .list(shapes::VOLUME),
        row!(POST "/1.0/storage-pools/{name}/volumes/{type}", volumes::create, "Create a custom volume")
            .takes(shapes::VOLUMES_POST)
            .gives(Gives::Created),
        row!(GET "/1.0/storage-pools/{name}/volumes/{type}/{volume}", volumes::show, "Get a volume")
            .object(shapes::VOLUME)
            .query(&["recursion"]),
        row!(PUT "/1.0/storage-pools/{name}/volumes/{type}/{volume}", volumes::update, "Replace a volume's config, or restore a snapshot")
            .takes(shapes::VOLUME_PUT),
        row!(PATCH "/1.0/storage-pools/{name}/volumes/{type}/{volume}", volumes::patch, "Change some of a volume's config")
            .takes(shapes::VOLUME_PUT),
        row!(POST "/1.0/storage-pools/{name}/volumes/{type}/{volume}", volumes::rename, "Rename a custom volume, or move it to another pool")
            .takes(shapes::VOLUME_POST)
            .gives(Gives::Created),
        row!(DELETE "/1.0/storage-pools/{name}/volumes/{type}/{volume}", volumes::delete, "Delete a custom volume"),
        row!(GET "/1.0/storage-pools/{name}/volumes/{type}/{volume}/state", volumes::state, "Get what a volume uses")
            .object(shapes::VOLUME_STATE),
        row!(GET "/1.0/storage-pools/{name}/volumes/{type}/{volume}/snapshots", volume_snapshots::list, "List snapshots of a volume")
            .list(shapes::VOLUME_SNAPSHOT),
        row!(POST "/1.0/storage-pools/{name}/volumes/{type}/{volume}/snapshots", volume_snapshots::create, "Take a snapshot of a custom volume")
            .takes(shapes::VOLUME_SNAPSHOTS_POST)
            .gives(Gives::Operation),
        row!(GET "/1.0/storage-pools/{name}/volumes/{type}/{volume}/snapshots/{snapshot}", volume_snapshots::show, "Get a snapshot of a volume")
            .object(shapes::VOLUME_SNAPSHOT),
        row!(PUT "/1.0/storage-pools/{name}/volumes/{type}/{volume}/snapshots/{snapshot}", volume_snapshots::update, "Change a snapshot of a volume")
            .takes(shapes::VOLUME_SNAPSHOT_PUT),
        row!(PATCH "/1.0/storage-pools/{name}/volumes/{type}/{volume}/snapshots/{snapshot}", volume_snapshots::update, "Change some of a snapshot of a volume")
            .takes(shapes::VOLUME_SNAPSHOT_PUT),
        row!(POST "/1.0/storage-pools/{name}/volumes/{type}/{volume}/snapshots/{snapshot}", volume_snapshots::rename, "Rename a snapshot of a volume")
            .takes(shapes::VOLUME_SNAPSHOT_POST)
            .gives(Gives::Operation),
        row!(DELETE "/1.0/storage-pools/{name}/volumes/{type}/{volume}/snapshots/{snapshot}", volume_snapshots::delete, "Delete a snapshot of a volume")
            .gives(Gives::Operation),
        row!(GET "/1.0/storage-pools/{name}/volumes/{type}/{volume}/backups", volume_backups::list, "List backups of a custom volume")
            .list(shapes::VOLUME_BACKUP),
        row!(POST "/1.0/storage-pools/{name}/volumes/{type}/{volume}/backups", volume_backups::create, "Back a custom volume up: kept here, or with Accept: application/octet-stream sent")
            .takes(shapes::VOLUME_BACKUPS_POST)
            .gives(Gives::Operation),
        row!(GET "/1.0/storage-pools/{name}/volumes/{type}/{volume}/backups/{backup}", volume_backups::show, "Get a backup of a volume")
            .object(shapes::VOLUME_BACKUP),
        row!(POST "/1.0/storage-pools/{name}/volumes/{type}/{volume}/backups/{backup}", volume_backups::rename, "Rename a backup of a volume")
            .takes(shapes::RENAME)
            .gives(Gives::Operation),
        row!(DELETE "/1.0/storage-pools/{name}/volumes/{type}/{volume}/backups/{backup}", volume_backups::delete, "Delete a backup of a volume")
            .gives(Gives::Operation),
        row!(GET "/1.0/storage-pools/{name}/volumes/{type}/{volume}/backups/{backup}/export", volume_backups::fetch, "Get the file of a backup of a volume")
            .gives(Gives::Bytes),
        row!(GET "/1.0/storage-pools/{name}/volumes/{type}/{volume}/files", files::get, "Read a file of a volume, list a directory")
            .gives(Gives::Bytes)
            .query(&["path"]),
        row!(POST "/1.0/storage-pools/{name}/volumes/{type}/{volume}/files", files::post, "Write a file of a volume, make a directory or symlink")
            .query(&["path"]),
        row!(DELETE "/1.0/storage-pools/{name}/volumes/{type}/{volume}/files", files::delete, "Delete a file or directory of a volume")
            .query(&["path"]),
        row!(GET "/1.0/storage-pools/{name}/volumes/{type}/{volume}/sftp", files::sftp, "Talk SFTP to a volume")
            .gives(Gives::Upgrade),
    ]
}

fn of_operations() -> Vec<Route> {
    vec![
        row!(GET "/1.0/operations", operations::list, "List operations, by status")
            .object(shapes::ANY)
            .query(&["recursion", "all-projects"]),
        row!(GET "/1.0/operations/{id}", operations::show, "Get an operation").object(shapes::OPERATION),
        row!(DELETE "/1.0/operations/{id}", operations::cancel, "Cancel an operation"),
        row!(GET "/1.0/operations/{id}/wait", operations::wait, "Wait for an operation")
            .object(shapes::OPERATION)
            .query(&["timeout"]),
        row!(GET "/1.0/operations/{id}/websocket", operations::connect, "Connect to an operation (websocket)")
            .gives(Gives::Upgrade)
            .query(&["secret"]),
    ]
}
