//! Profiles and projects: `/1.0/profiles`, `/1.0/projects`.

use cabin_api::profile::{Profile, ProfilePut, ProfilesPost, RenamePost};
use cabin_api::project::Project;

use crate::{Address, Client, ETag, Reply, Result, Tagged};

fn root() -> Address {
    Address::new("/1.0/profiles")
}

impl Client {
    /// The names of all profiles.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn profile_names(&self) -> Result<Vec<String>> {
        self.names(root()).await
    }

    /// All profiles.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn profiles(&self) -> Result<Vec<Profile>> {
        self.get(root().query("recursion", "1")).await
    }

    /// One profile.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn profile(&self, name: &str) -> Result<Tagged<Profile>> {
        self.get_tagged(root().name(name)).await
    }

    /// Makes a profile.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn create_profile(&self, profile: &ProfilesPost) -> Result<Reply> {
        self.post(root(), profile).await
    }

    /// Replaces a profile.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn update_profile(&self, name: &str, put: &ProfilePut, etag: Option<&ETag>) -> Result<Reply> {
        self.put(root().name(name), put, etag).await
    }

    /// Gives a profile a new name.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn rename_profile(&self, name: &str, new: &str) -> Result<Reply> {
        self.post(root().name(name), &RenamePost { name: new.to_owned() }).await
    }

    /// Deletes a profile.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn delete_profile(&self, name: &str) -> Result<Reply> {
        self.delete(root().name(name)).await
    }

    /// All projects.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn projects(&self) -> Result<Vec<Project>> {
        self.get(Address::new("/1.0/projects?recursion=1")).await
    }

    /// One project.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn project_named(&self, name: &str) -> Result<Tagged<Project>> {
        self.get_tagged(Address::new("/1.0/projects").name(name)).await
    }
}
