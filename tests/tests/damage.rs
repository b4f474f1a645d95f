//! 2,000 damaged archives: 1,000 with changed bytes, 300 cut, 700 with an
//! edited field. Whatever happens to an archive, `warp` gives exact data or an
//! error that names the file.
//!
//! Each case is made from a seed and its number. `WARP_DAMAGE_SEED=N` takes
//! another seed, `WARP_DAMAGE_KEEP=DIR` keeps the archives of failed cases.

use warp_tests::damage::{
    Archive, Lab, Slot, cut, edit, judge_edit, judge_hit, judge_mounted_edit, judge_mounted_hit,
    raw, run_cases,
};

/// The seed, unless the environment says another.
const SEED: u64 = 0x5eed_0001;
const RAW: usize = 1000;
const CUTS: usize = 300;
const EDITS: usize = 700;
/// Cases from here on are done to the sealed archive, whose every opening
/// costs what stretching a passphrase costs.
const RAW_PLAIN: usize = 930;
const CUTS_PLAIN: usize = 270;
/// One case in this many is mounted too.
const MOUNTED: usize = 20;

fn seed() -> u64 {
    let given = std::env::var("WARP_DAMAGE_SEED").ok();
    given.map_or(SEED, |text| text.parse().expect("WARP_DAMAGE_SEED is a number"))
}

fn every(cases: usize) -> Vec<usize> {
    (0..cases).collect()
}

fn mounted(cases: usize) -> Vec<usize> {
    (0..cases).step_by(MOUNTED).map(|case| case + case / MOUNTED % MOUNTED).collect()
}

fn named(result: Result<(), String>, kind: &str, case: usize) -> Result<(), String> {
    result.map_err(|why| format!("seed {}, {kind} {case}: {why}", seed()))
}

fn raw_case(slot: &Slot<'_>, archive: &Archive, case: usize) -> Result<(), String> {
    named(judge_hit(slot, archive, &raw(archive, seed(), case)), "raw", case)
}

fn cut_case(slot: &Slot<'_>, archive: &Archive, case: usize) -> Result<(), String> {
    named(judge_hit(slot, archive, &cut(archive, seed(), case)), "cut", case)
}

#[test]
fn changed_bytes_are_found_and_salvage_gives_back_what_is_whole() {
    let lab = Lab::new();
    println!("{}", lab.plain.describe());
    run_cases(&lab, &every(RAW_PLAIN), |slot, case| raw_case(slot, &lab.plain, case));
}

#[test]
fn a_cut_is_found_and_salvage_gives_back_what_is_before_it() {
    let lab = Lab::new();
    run_cases(&lab, &every(CUTS_PLAIN), |slot, case| cut_case(slot, &lab.plain, case));
}

#[test]
fn damage_to_a_sealed_archive_is_found_and_salvage_gives_back_what_is_whole() {
    let lab = Lab::new();
    let sealed = lab.sealed();
    let raws: Vec<usize> = (RAW_PLAIN..RAW).collect();
    run_cases(&lab, &raws, |slot, case| raw_case(slot, &sealed, case));
    let cuts: Vec<usize> = (CUTS_PLAIN..CUTS).collect();
    run_cases(&lab, &cuts, |slot, case| cut_case(slot, &sealed, case));
}

#[test]
fn an_edited_field_is_refused_or_means_what_it_says() {
    let lab = Lab::new();
    run_cases(&lab, &every(EDITS), |slot, case| {
        let edited = edit(&lab.plain, slot, seed(), case);
        named(judge_edit(slot, &lab.plain, &edited), "edit", case)
    });
}

#[test]
fn a_mount_of_a_damaged_archive_gives_exact_bytes_or_an_error() {
    let lab = Lab::new();
    let archive = &lab.plain;
    run_cases(&lab, &mounted(RAW_PLAIN), |slot, case| {
        named(judge_mounted_hit(slot, archive, &raw(archive, seed(), case)), "raw", case)
    });
    run_cases(&lab, &mounted(CUTS_PLAIN), |slot, case| {
        named(judge_mounted_hit(slot, archive, &cut(archive, seed(), case)), "cut", case)
    });
}

#[test]
fn a_mount_of_an_edited_archive_gives_exact_bytes_or_an_error() {
    let lab = Lab::new();
    run_cases(&lab, &mounted(EDITS), |slot, case| {
        let edited = edit(&lab.plain, slot, seed(), case);
        named(judge_mounted_edit(slot, &edited), "edit", case)
    });
}
