//! The templates of an instance: `/1.0/instances/{name}/metadata/templates`.

use http::Method;

use crate::{Address, Client, Result, full_body};

fn root(instance: &str) -> Address {
    Address::new("/1.0/instances").name(instance).then("metadata").then("templates")
}

impl Client {
    /// The names of an instance's templates.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn templates(&self, instance: &str) -> Result<Vec<String>> {
        self.get(root(instance)).await
    }

    /// The text of one.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn template(&self, instance: &str, name: &str) -> Result<String> {
        self.text(root(instance).query("path", name)).await
    }

    /// Makes one, or replaces its text.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn write_template(&self, instance: &str, name: &str, text: String) -> Result<()> {
        let headers = [("content-type", "application/octet-stream".to_owned())];
        let address = root(instance).query("path", name);
        self.send_body(Method::POST, address, &headers, full_body(text)).await.map(drop)
    }

    /// Deletes one.
    ///
    /// # Errors
    /// When it is not there, or the metadata names it.
    pub async fn delete_template(&self, instance: &str, name: &str) -> Result<()> {
        self.delete(root(instance).query("path", name)).await.map(drop)
    }
}
