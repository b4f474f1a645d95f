//! Damage on the disk, as users meet it: `warp check` finds it and names the
//! files, the rest goes on, and `warp repair` brings back what can be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use warp_tests::damage::Rng;
use warp_tests::device::{Device, Running, bash, fails};
use warp_tests::must;
use warp_tests::nasty::{mkdir, noise, same_tree, write};

const ROUNDS: usize = 4;
const FLIPS: usize = 250;

fn state(device: &Device) -> PathBuf {
    let portals = fs::read_dir(device.home().join("portals")).expect("portals");
    let portal = portals.flatten().find(|entry| entry.path().is_dir()).expect("a portal");
    portal.path().join("state")
}

fn files(device: &Device, extension: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(state(device)).expect("the state").flatten().map(|e| e.path());
    let mut found: Vec<PathBuf> =
        all.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    found.sort();
    found
}

/// Files of all sizes below `dir`, so many bytes together; by path.
fn fill(dir: &Path, bytes: usize) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let (mut left, mut n) = (bytes, 0);
    while left > 0 {
        let len = [200, 3_000, 20_000, 90_000, 700_000][n % 5].min(left);
        let below = mkdir_all(&dir.join(format!("d{}", n % 8)));
        let bytes = noise(len, n as u64);
        write(&below.join(format!("f{n}")), &bytes);
        all.insert(format!("/d{}/f{n}", n % 8), bytes);
        (left, n) = (left - len, n + 1);
    }
    all
}

fn mkdir_all(path: &Path) -> PathBuf {
    if path.exists() { path.into() } else { mkdir(path) }
}

/// Strings of a field of a document, one a line.
fn list(device: &Device, output: &warp_tests::Output, expression: &str) -> Vec<String> {
    let text = device.json(output, &format!("'\\n'.join({expression})"));
    text.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
}

/// 1,000 bits, a quarter at a time: each is found, what it hits is named, and
/// whatever is not named reads as it was.
#[test]
fn flipped_bits_are_found_named_and_cost_a_mount_no_other_file() {
    let device = Device::mounted();
    let all = fill(&device.m(), 40 << 20);
    device.types("snapshot create p s").exits(0);
    device.umount();
    device.until_gone();
    let packs = files(&device, "pack");
    let before: Vec<Vec<u8>> = packs.iter().map(|path| fs::read(path).expect("a pack")).collect();
    let (mut lost, mut kept) = (0, 0);
    for round in 0..ROUNDS {
        let mut rng = Rng::new(7, round);
        let mut after = before.clone();
        let mut flips = BTreeSet::new();
        while flips.len() < FLIPS {
            let pack = rng.below(packs.len());
            // Behind the version, another of which is another program's.
            flips.insert((pack, 9 + rng.below(before[pack].len() - 9)));
        }
        for (pack, at) in &flips {
            after[*pack][*at] ^= 1 << rng.below(8);
        }
        packs.iter().zip(&after).for_each(|(path, bytes)| write(path, bytes));
        let found = device.types("check --read-data --json p").exits(6);
        let damage = "[f\"{x['file']} {x['offset']} {x['length']}\" for x in d['damage']]";
        let mut places: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for line in list(&device, &found, damage) {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().expect("a number");
            places.entry(words[0].into()).or_default().push((number(1), number(2)));
        }
        for (pack, at) in &flips {
            let name = packs[*pack].file_name().expect("a name").to_str().expect("text");
            let at = *at as u64;
            let here = places.get(name).is_some_and(|places| {
                places.iter().any(|(from, len)| (*from..from + len).contains(&at))
            });
            assert!(here, "round {round}: byte {at} of {name} was not found");
        }
        let named: BTreeSet<String> =
            list(&device, &found, "[x['path'] for x in d['problems']]").into_iter().collect();
        let mount = device.types("mount p m");
        if mount.code != 0 {
            assert!(mount.code == 6 && named.contains("/"), "round {round}: {}", mount.stderr);
        } else {
            for (path, bytes) in &all {
                let above = path.rsplit_once('/').map_or("", |(above, _)| above);
                match fs::read(device.at(&path[1..])) {
                    Ok(found) => {
                        assert!(found == *bytes, "round {round}: {path} reads as something else");
                        assert!(!named.contains(path), "round {round}: {path} can be read");
                        kept += 1;
                    }
                    Err(e) => {
                        assert_eq!(e.raw_os_error(), Some(5), "round {round}: {path}: {e}");
                        let said =
                            named.contains(path) || named.contains(above) || named.contains("/");
                        assert!(said, "round {round}: {path} is not named");
                        assert!(
                            named.contains(&format!("/.snapshots/s{path}"))
                                || named.iter().any(|n| n.starts_with("/.snapshots/s")
                                    && format!("/.snapshots/s{path}").starts_with(n.as_str()))
                        );
                        lost += 1;
                    }
                }
            }
            device.umount();
        }
        device.until_gone();
        packs.iter().zip(&before).for_each(|(path, bytes)| write(path, bytes));
        // What was found damaged, and is not any more.
        let _ = fs::remove_file(state(&device).join("scrub"));
    }
    assert!(lost > 100 && kept > 100, "{lost} files lost, {kept} kept");
    device.types("check --read-data p").exits(0);
}

/// The packs are the truth: the index is made of them.
#[test]
fn a_mounted_tree_outlives_the_loss_of_the_whole_index() {
    let device = Device::mounted();
    let source = mkdir(&device.path("source"));
    fill(&source, 40 << 20);
    bash(&device.path(""), "rsync -a --modify-window=-1 source/ m/tree/").exits(0);
    device.umount();
    let indexes = files(&device, "idx");
    assert!(indexes.len() >= 2, "{indexes:?}");
    let lose = || {
        for (n, path) in indexes.iter().enumerate() {
            match n % 3 {
                0 => fs::remove_file(path).expect("removed"),
                1 => write(path, &noise(3000, 1)),
                _ => write(path, b""),
            }
        }
    };
    lose();
    device.until_gone();
    let sums = || {
        must(
            "sh",
            [
                "-c",
                "cd \"$1\" && find . -type f -print0 | sort -z | xargs -0 sha256sum",
                "sums",
                state(&device).to_str().expect("text"),
            ],
        )
    };
    let before = sums();
    let told = device.types("repair -n --json p").exits(0);
    assert_eq!(device.json(&told, "len(d['indexes'])"), indexes.len().to_string());
    assert_eq!(sums(), before, "`-n` changed something");
    device.types("repair p").exits(0);
    assert_eq!(files(&device, "idx"), indexes);
    device.types("check --read-data p").exits(0);
    device.mount().exits(0);
    same_tree(&source, &device.at("tree"));
    device.umount();
    // Cut off in the middle, it is done again.
    for wait in [5, 20, 60, 150] {
        device.until_gone();
        lose();
        let mut command = device.warp(["repair", "p"]);
        let mut repair = Running::start(command.command());
        std::thread::sleep(Duration::from_millis(wait));
        for daemon in device.daemons() {
            must("kill", ["-KILL", &daemon.to_string()]);
        }
        let _ = repair.ends(Duration::from_secs(20));
        device.until_gone();
        device.types("repair p").exits(0);
        device.types("check --read-data p").exits(0);
    }
    device.mount().exits(0);
    same_tree(&source, &device.at("tree"));
    device.umount();
}

/// What was whole in a damaged pack is in a new one, and its bytes are kept.
#[test]
fn a_damaged_pack_of_a_mounted_portal_is_set_aside() {
    let device = Device::mounted();
    let all = fill(&device.m(), 4 << 20);
    device.umount();
    device.until_gone();
    let pack = files(&device, "pack").remove(0);
    let mut bytes = fs::read(&pack).expect("a pack");
    bytes[1_000_000] ^= 1;
    write(&pack, &bytes);
    let told = device.types("repair p").exits(6);
    assert!(told.text().contains("set aside as"), "{}", told.text());
    let aside = PathBuf::from(format!("{}.damaged", pack.display()));
    assert!(fs::read(&aside).expect("kept") == bytes);
    device.mount().exits(0);
    let lost = all.iter().filter(|(path, _)| fs::read(device.at(&path[1..])).is_err()).count();
    assert!(lost >= 1 && lost < all.len() / 2, "{lost} of {}", all.len());
    // Written again, it is there again.
    for (path, bytes) in &all {
        write(&device.at(&path[1..]), bytes);
    }
    device.umount();
    device.types("check --read-data p").exits(0);
}

#[test]
fn a_check_of_a_mounted_portal_says_what_it_did_not_read() {
    let device = Device::mounted();
    fill(&device.m(), 3 << 20);
    let text = |line: &str| device.types(line).exits(0).text();
    let shallow = text("check p");
    assert!(
        shallow.contains("p: ok: ") && shallow.contains("data chunks read (0 B of"),
        "{shallow}"
    );
    assert!(shallow.contains("`--read-data` reads all of it"), "{shallow}");
    let sample = text("check --sample 20% --seed 4 p");
    assert!(sample.contains("sample 4, the others not"), "{sample}");
    let counts = |line: &str| {
        let output = device.types(&format!("{line} --json")).exits(0);
        device.json(&output, "[d['data_chunks_read'], d['data_chunks'], d['sample_seed']]")
    };
    assert_eq!(counts("check --sample 20% --seed 4 p"), counts("check --sample 20% --seed 4 p"));
    assert!(text("fsck --read-data p").contains("every byte of"));
    fails(device.types("repair p"), 11, "is mounted on", "warp umount");
    fails(device.types("check none"), 4, "no portal of that name", "warp portal");
    fails(device.types("repair none"), 4, "no portal of that name", "warp portal");
    device.types("check --sample 0 p").exits(2);
    device.types("check --read-data --sample 5% p").exits(2);
    device.umount();
}
