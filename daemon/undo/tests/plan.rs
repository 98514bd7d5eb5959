//! A plan of faults, alone in its process: points are counted for all threads together.

use cabin_undo::fault::{Plan, arm, pass, passed, reach, seen};

#[test]
fn a_plan_fails_its_point_once_and_never_one_behind_a_commit() {
    arm(Plan::Fail(2));
    assert!(pass("one").is_ok());
    assert_eq!(pass("two").map_err(|injected| injected.number), Err(2));
    assert!(pass("three").is_ok());
    arm(Plan::Fail(1));
    reach("committed");
    assert!(pass("later").is_ok());
    let fails: Vec<bool> = passed().into_iter().map(|point| point.fails).collect();
    assert_eq!((fails, seen()), (vec![false, true], 2));
    arm(Plan::Off);
}
