//! A plan of faults, alone in its process: points are counted for all threads together.

use cabin_undo::fault::{Kind, Plan, arm, behind, pass, passed, reach, seen, undone};
use cabin_undo::{Injected, atomically};

#[test]
fn a_plan_fails_its_point_once_and_never_one_of_another_kind() {
    arm(Plan::Fail(2));
    assert!(pass("one").is_ok());
    assert_eq!(pass("two").map_err(|injected| injected.number), Err(2));
    assert!(pass("three").is_ok());
    arm(Plan::Fail(1));
    reach("committed");
    assert!(pass("later").is_ok());
    let kinds: Vec<Kind> = passed().into_iter().map(|point| point.kind).collect();
    assert_eq!((kinds, seen()), (vec![Kind::Ends, Kind::Fails], 2));
    arm(Plan::Fail(1));
    assert!(behind("tree").is_ok());
    arm(Plan::Leave(2));
    assert!(behind("tree").is_ok() && behind("link").is_err() && behind("logs").is_ok());
    arm(Plan::Leave(1));
    assert!(pass("one").is_ok());
    // Steps that are taken back are counted from the failure on.
    let stepwise = || {
        atomically(|undo| -> Result<(), Injected> {
            undo.push("first", || Ok::<_, Injected>(()))?;
            undo.push("second", || Ok::<_, Injected>(()))
        })
    };
    arm(Plan::Fail(2));
    assert!(stepwise().is_err());
    assert_eq!(undone(), 2);
    arm(Plan::Fail(9));
    assert!(
        atomically(|undo| -> Result<(), Injected> {
            undo.push("first", || Err("no"))?;
            Err(Injected { number: 0, what: String::new() })
        })
        .is_err_and(|failed| failed.left_behind.len() == 1)
    );
    assert_eq!(undone(), 0);
    arm(Plan::Off);
}
