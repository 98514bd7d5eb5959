//! What each route does, by noun: read the call, ask the core, choose the reply. No rules of the product here.

pub mod aliases;
pub mod backups;
pub mod images;
pub mod instance_parts;
pub mod instances;
pub mod internal;
pub mod metadata;
pub mod networks;
pub mod operations;
pub mod profiles;
pub mod projects;
pub mod rebuild;
pub mod server;
pub mod snapshots;
pub mod storage;
pub mod volume_backups;
pub mod volume_snapshots;
pub mod volumes;
pub mod warnings;
