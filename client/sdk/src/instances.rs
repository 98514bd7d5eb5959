//! Instances: `/1.0/instances`.

use cabin_api::instance::{
    Instance, InstanceFull, InstancePost, InstancePut, InstanceState, InstanceStatePut, InstancesPost,
    InstancesPut,
};

use crate::address::last_name;
use crate::{Address, Client, ETag, Reply, Result, Tagged};

/// How much a list of instances holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recursion {
    /// What is configured.
    Objects,
    /// And the state, snapshots, backups.
    Full,
}

impl Recursion {
    fn digit(self) -> &'static str {
        match self {
            Recursion::Objects => "1",
            Recursion::Full => "2",
        }
    }
}

fn root() -> Address {
    Address::new("/1.0/instances")
}

impl Client {
    /// The address of a list of instances.
    #[must_use]
    pub fn instances_address(recursion: Recursion, filter: Option<&str>, all_projects: bool) -> Address {
        root()
            .query("recursion", recursion.digit())
            .query_if("filter", filter)
            .query_if("all-projects", all_projects.then_some("true"))
    }

    /// The same, with nothing looked up of states but these fields: `state.disk`, `state.network`,
    /// `state.usage`, with commas.
    #[must_use]
    pub fn with_fields(address: Address, fields: &str) -> Address {
        address.query("fields", fields)
    }

    /// The names of all instances.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn instance_names(&self) -> Result<Vec<String>> {
        self.names(root()).await
    }

    /// Instances without their state.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn instances(&self, filter: Option<&str>) -> Result<Vec<Instance>> {
        self.get(Client::instances_address(Recursion::Objects, filter, false)).await
    }

    /// Instances with their state.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn instances_full(&self, filter: Option<&str>) -> Result<Vec<InstanceFull>> {
        self.get(Client::instances_address(Recursion::Full, filter, false)).await
    }

    /// One instance.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn instance(&self, name: &str) -> Result<Tagged<Instance>> {
        self.get_tagged(root().name(name)).await
    }

    /// One instance with its state.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn instance_full(&self, name: &str) -> Result<InstanceFull> {
        self.get(root().name(name).query("recursion", "1")).await
    }

    /// What an instance does now.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn instance_state(&self, name: &str) -> Result<InstanceState> {
        self.get(root().name(name).then("state")).await
    }

    /// Makes an instance.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn create_instance(&self, instance: &InstancesPost) -> Result<Reply> {
        self.post(root(), instance).await
    }

    /// Replaces an instance's config.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn update_instance(&self, name: &str, put: &InstancePut, etag: Option<&ETag>) -> Result<Reply> {
        self.put(root().name(name), put, etag).await
    }

    /// Gives an instance a new name.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn rename_instance(&self, name: &str, new: &str) -> Result<Reply> {
        let post = InstancePost { name: new.to_owned(), ..InstancePost::default() };
        self.post(root().name(name), &post).await
    }

    /// Moves an instance to another storage pool.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn move_instance(&self, name: &str, post: &InstancePost) -> Result<Reply> {
        self.post(root().name(name), post).await
    }

    /// Starts, stops, restarts, freezes or unfreezes.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn set_instance_state(&self, name: &str, state: &InstanceStatePut) -> Result<Reply> {
        self.put(root().name(name).then("state"), state, None).await
    }

    /// The same for every instance of the project.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn set_all_instances_state(&self, state: &InstanceStatePut) -> Result<Reply> {
        self.put(root(), &InstancesPut { state: Some(state.clone()) }, None).await
    }

    /// Deletes an instance. With `force` a running one is stopped first, where the daemon knows how.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn delete_instance(&self, name: &str, force: bool) -> Result<Reply> {
        self.delete(root().name(name).query_if("force", force.then_some("true"))).await
    }

    /// The names of an instance's logs.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn instance_logs(&self, name: &str) -> Result<Vec<String>> {
        self.names(root().name(name).then("logs")).await
    }

    /// One log.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn instance_log(&self, name: &str, log: &str) -> Result<String> {
        self.text(root().name(name).then("logs").name(log)).await
    }

    /// The names in a list of addresses.
    pub(crate) async fn names(&self, address: Address) -> Result<Vec<String>> {
        let addresses: Vec<String> = self.get(address).await?;
        Ok(addresses.iter().map(|address| last_name(address)).collect())
    }
}
