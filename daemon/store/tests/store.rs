//! The store against real files.
#![allow(clippy::unwrap_used)]

use cabin_store::rows::{Alias, Profile};
use cabin_store::{Error, Store};

fn fresh(dir: &tempfile::TempDir) -> Store {
    Store::open(&dir.path().join("cabin.db")).unwrap()
}

fn profile(text: &str) -> Profile {
    Profile { description: text.into(), ..Profile::default() }
}

#[test]
fn what_was_committed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    fresh(&dir).begin().insert("default", "web", &profile("one")).unwrap().commit().unwrap();
    let again = fresh(&dir);
    assert_eq!(again.rows::<Profile>().get("default", "web").unwrap().unwrap().row.description, "one");
    assert!(again.rows::<Profile>().get("other", "web").unwrap().is_none());
}

#[test]
fn names_are_those_of_the_rows_of_one_project() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(&dir);
    for (project, name) in [("default", "web"), ("default", "a/b%"), ("other", "elsewhere")] {
        store.begin().insert(project, name, &profile("")).unwrap().commit().unwrap();
    }
    store.begin().insert("default", "alias", &Alias::default()).unwrap().commit().unwrap();
    assert_eq!(store.rows::<Profile>().names("default").unwrap(), ["a/b%", "web"]);
    assert!(store.rows::<Profile>().names("none").unwrap().is_empty());
}

#[test]
fn a_name_is_given_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(&dir);
    store.begin().insert("default", "web", &profile("one")).unwrap().commit().unwrap();
    let second = store.begin().insert("default", "web", &profile("two")).unwrap().commit();
    assert!(matches!(second, Err(Error::Changed { .. })));
}

#[test]
fn a_transaction_with_one_stale_check_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(&dir);
    let first = store.begin().insert("default", "a", &profile("1")).unwrap().commit().unwrap();
    store.begin().update("default", "a", first, &profile("2")).unwrap().commit().unwrap();
    let stale = store
        .begin()
        .insert("default", "b", &profile("new"))
        .unwrap()
        .update("default", "a", first, &profile("3"))
        .unwrap()
        .commit();
    assert!(matches!(stale, Err(Error::Changed { .. })));
    assert!(store.rows::<Profile>().get("default", "b").unwrap().is_none());
    assert_eq!(store.rows::<Profile>().get("default", "a").unwrap().unwrap().row.description, "2");
}

#[test]
fn names_with_slashes_and_neighbouring_projects_stay_apart() {
    let dir = tempfile::tempdir().unwrap();
    let store = fresh(&dir);
    let alias = Alias { description: String::new(), target: "x".into() };
    store
        .begin()
        .insert("default", "debian/12", &alias)
        .unwrap()
        .insert("default2", "debian/12", &alias)
        .unwrap()
        .commit()
        .unwrap();
    let names: Vec<_> = store.rows::<Alias>().list("default").unwrap().into_iter().map(|a| a.name).collect();
    assert_eq!(names, ["debian/12"]);
    assert_eq!(store.rows::<Alias>().all().unwrap().len(), 2);
}

#[test]
fn a_database_of_a_later_version_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    drop(fresh(&dir));
    let file = dir.path().join("cabin.db");
    let version = || {
        let open = rusqlite::Connection::open(&file).unwrap();
        open.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let known = version();
    rusqlite::Connection::open(&file).unwrap().pragma_update(None, "user_version", known + 1).unwrap();
    let refused = Store::open(&file).err().expect("a later version");
    assert!(
        matches!(refused, cabin_store::Error::Newer { found, known: ours } if found == known + 1 && ours == known)
    );
    assert_eq!(version(), known + 1);
}

#[test]
fn a_damaged_file_is_refused_and_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("cabin.db"), vec![7u8; 8192]).unwrap();
    assert!(Store::open(&dir.path().join("cabin.db")).is_err());
    assert_eq!(std::fs::read(dir.path().join("cabin.db")).unwrap(), vec![7u8; 8192]);
}
