//! The one way in which an instance's config, devices and profiles become a row: merged with the profiles, checked,
//! and committed only if those are still what it was merged with.

use cabin_profiles::Who;
use cabin_store::{Revision, Transaction, rows};

use super::create::check_expanded;
use super::mac::give_macs;
use super::{Expanded, Profiles, expand, root_pool};
use crate::{Error, Host, profile};

/// What an instance is to be.
pub(crate) struct Checked {
    /// The row, in which every nic has its address.
    pub row: rows::Instance,
    /// With the profiles under it.
    pub expanded: Expanded,
    /// Those, and when each was written.
    profiles: Vec<(String, Revision)>,
}

impl Checked {
    /// Merges a row with its profiles as they are now. From here to the commit the caller holds
    /// [`Host::keep_layout`] or [`Host::change_layout`]: then no profile changes, and nothing it names goes.
    ///
    /// # Errors
    /// When a profile is missing, or the whole makes no sense on this host.
    pub fn of(host: &Host, project: &str, mut row: rows::Instance) -> Result<Checked, Error> {
        cabin_profiles::validate_instance_config(&row.config, Who::Instance)?;
        cabin_profiles::validate_devices(&row.devices, Who::Instance)?;
        let mut known = Profiles::new();
        let mut profiles = Vec::with_capacity(row.profiles.len());
        for name in &row.profiles {
            let found = profile::load(host, project, name)?;
            profiles.push((name.clone(), found.revision));
            known.insert(name.clone(), found.row);
        }
        let expanded = expand(&row, &known);
        give_macs(host, &mut row, &expanded)?;
        let expanded = expand(&row, &known);
        check_expanded(host, &expanded)?;
        Ok(Checked { row, expanded, profiles })
    }

    /// The same of a row whose tree is in its pool already, or is about to be.
    ///
    /// # Errors
    /// As [`Checked::of`], and when the root disk would be in another pool.
    pub fn in_its_pool(host: &Host, project: &str, row: rows::Instance) -> Result<Checked, Error> {
        let checked = Checked::of(host, project, row)?;
        crate::storage::pool(host, &checked.row.pool)?;
        match root_pool(&checked.expanded.devices)? == checked.row.pool {
            true => Ok(checked),
            false => Err(Error::invalid(format!(
                "its profiles changed meanwhile: its root disk would not be in pool `{}`",
                checked.row.pool
            ))),
        }
    }

    /// A new row.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn insert<'a>(
        &self,
        txn: Transaction<'a>,
        project: &str,
        name: &str,
    ) -> Result<Transaction<'a>, Error> {
        Ok(self.resting_on_profiles(txn, project).insert(project, name, &self.row)?)
    }

    /// In the place of the row that was read at `revision`.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn update<'a>(
        &self,
        txn: Transaction<'a>,
        project: &str,
        name: &str,
        revision: Revision,
    ) -> Result<Transaction<'a>, Error> {
        Ok(self.resting_on_profiles(txn, project).update(project, name, revision, &self.row)?)
    }

    fn resting_on_profiles<'a>(&self, txn: Transaction<'a>, project: &str) -> Transaction<'a> {
        let check = |txn: Transaction<'a>, (name, revision): &(String, Revision)| {
            txn.check::<rows::Profile>(project, name, Some(*revision))
        };
        self.profiles.iter().fold(txn, check)
    }
}
