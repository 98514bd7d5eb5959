//! Managers of packages: what each is told, as scripts to run inside the tree.

use crate::definition::ManagerName;

/// Makes package scripts start no services, and answers no questions.
const APT: &str = "#!/bin/sh\nset -eu\nexport DEBIAN_FRONTEND=noninteractive\n";

/// A manager of packages.
#[derive(Debug, Clone, Copy)]
pub struct Manager(pub ManagerName);

impl Manager {
    /// Reads the lists and brings everything up to date.
    #[must_use]
    pub fn update(self) -> String {
        match self.0 {
            ManagerName::Apt => format!("{APT}apt-get update\napt-get -y dist-upgrade\n"),
        }
    }

    /// Reads the lists alone.
    #[must_use]
    pub fn refresh(self) -> String {
        match self.0 {
            ManagerName::Apt => format!("{APT}apt-get update\n"),
        }
    }

    /// Installs packages.
    #[must_use]
    pub fn install(self, packages: &[String]) -> String {
        match self.0 {
            ManagerName::Apt => {
                format!("{APT}apt-get -y --no-install-recommends install -- {}\n", words(packages))
            }
        }
    }

    /// Removes packages and what only they needed.
    #[must_use]
    pub fn remove(self, packages: &[String]) -> String {
        match self.0 {
            ManagerName::Apt => format!("{APT}apt-get -y --auto-remove purge -- {}\n", words(packages)),
        }
    }

    /// Removes what the manager keeps for itself.
    #[must_use]
    pub fn cleanup(self) -> String {
        match self.0 {
            ManagerName::Apt => format!("{APT}apt-get clean\nrm -rf /var/lib/apt/lists/*\n"),
        }
    }
}

/// Packages as words of a shell.
fn words(packages: &[String]) -> String {
    packages.iter().map(|name| format!("'{}'", name.replace('\'', "'\\''"))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_name_is_one_word_whatever_is_in_it() {
        let script = Manager(ManagerName::Apt).install(&["less".to_owned(), "a b'; rm -rf /".to_owned()]);
        assert!(script.ends_with("-- 'less' 'a b'\\''; rm -rf /'\n"), "{script}");
    }
}
