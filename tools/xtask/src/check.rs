//! `cargo xtask check`: every step a change has to pass, in one order.
//!
//! Promises: stops at the first failure and names the step; every program is
//! run without stdin; whole-program tests get the release binary that this
//! very run has built. Never: skips a step silently: what is left out is said.

use crate::tidy;
use crate::workspace::{Workspace, cargo};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The crate whose tests run the built program.
const WHOLE_PROGRAM_TESTS: &str = "warp-tests";

struct Step {
    name: &'static str,
    work: Work,
}

enum Work {
    Tidy,
    Cargo {
        args: Vec<String>,
        env: Vec<(&'static str, OsString)>,
        /// A file that is there afterwards, or the step has failed.
        makes: Option<PathBuf>,
    },
}

/// Cargo plugins this machine may lack.
struct Plugins {
    nextest: bool,
    deny: bool,
}

/// Runs all steps.
pub(crate) fn run(workspace: &Workspace, fast: bool) -> Result<()> {
    let plugins = Plugins { nextest: has_plugin("nextest"), deny: has_plugin("deny") };
    for (there, what) in [
        (plugins.nextest, "cargo-nextest is not installed: tests run by cargo test"),
        (plugins.deny, "cargo-deny is not installed: licences and sources are not checked"),
        (!fast, "--fast: no release build, no whole-program tests"),
    ] {
        if !there {
            println!("check: note: {what}");
        }
    }
    let binary = workspace.target_directory.join("release/warp");
    let steps = plan(fast, &plugins, &binary);
    let started = Instant::now();
    let mut times = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        println!("check: [{}/{}] {} ...", index + 1, steps.len(), step.name);
        let step_started = Instant::now();
        let result = step.run(workspace);
        let took = seconds(step_started.elapsed());
        if let Err(error) = result {
            bail!("check: FAILED at step `{}` after {took}: {error:#}", step.name);
        }
        println!("check: [{}/{}] {} ok in {took}", index + 1, steps.len(), step.name);
        times.push(format!("{} {took}", step.name));
    }
    println!(
        "check: all {} steps passed in {} ({})",
        steps.len(),
        seconds(started.elapsed()),
        times.join(", ")
    );
    Ok(())
}

impl Step {
    fn run(&self, workspace: &Workspace) -> Result<()> {
        let (args, env, makes) = match &self.work {
            Work::Tidy => return tidy::run(workspace),
            Work::Cargo { args, env, makes } => (args, env, makes),
        };
        let line = format!("cargo {}", args.join(" "));
        let status = Command::new(cargo())
            .args(args)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .current_dir(&workspace.root)
            .stdin(Stdio::null())
            .status()
            .with_context(|| format!("cannot start `{line}`"))?;
        if !status.success() {
            bail!("`{line}`: {status}");
        }
        match makes {
            Some(file) if !file.is_file() => bail!("`{line}` left no {}", file.display()),
            _ => Ok(()),
        }
    }
}

/// The steps, in order.
fn plan(fast: bool, plugins: &Plugins, binary: &Path) -> Vec<Step> {
    let mut steps = vec![
        cargo_step("fmt", "fmt --all -- --check"),
        cargo_step("clippy", "clippy --workspace --all-targets -- -D warnings"),
        Step { name: "tidy", work: Work::Tidy },
    ];
    if plugins.deny {
        // It finds .deny.toml by itself; its option to name the file has moved
        // from one version to another.
        let deny = "deny --offline check bans licenses sources";
        steps.push(cargo_step("deny", deny));
    }
    let doc = cargo_step("doc", "doc --no-deps --workspace");
    steps.push(doc.with_env("RUSTDOCFLAGS", "-D warnings"));
    if !fast {
        let mut build = cargo_step("build", "build --release -p warp");
        if let Work::Cargo { makes, .. } = &mut build.work {
            *makes = Some(binary.to_owned());
        }
        steps.push(build);
    }
    steps.extend(test_steps(fast, plugins.nextest, binary));
    steps.push(cargo_step("doctest", "test --doc --workspace"));
    steps
}

/// Unit, property and model tests of all crates, and the whole-program tests
/// with the binary just built. Under `cargo test` these take a step of their
/// own, since only there one thread stands for nextest's group `mount`.
fn test_steps(fast: bool, nextest: bool, binary: &Path) -> Vec<Step> {
    let without = format!("--workspace --exclude {WHOLE_PROGRAM_TESTS}");
    match (nextest, fast) {
        (true, true) => vec![cargo_step("test", &format!("nextest run {without}"))],
        (true, false) => {
            vec![cargo_step("test", "nextest run --workspace").with_env("WARP_BIN", binary)]
        }
        (false, _) => {
            let mut steps =
                vec![cargo_step("test", &format!("test --no-fail-fast --tests {without}"))];
            if !fast {
                let whole = format!(
                    "test --no-fail-fast --tests -p {WHOLE_PROGRAM_TESTS} -- --test-threads=1"
                );
                steps.push(cargo_step("whole-program test", &whole).with_env("WARP_BIN", binary));
            }
            steps
        }
    }
}

fn cargo_step(name: &'static str, line: &str) -> Step {
    let args = line.split(' ').map(str::to_owned).collect();
    Step { name, work: Work::Cargo { args, env: Vec::new(), makes: None } }
}

impl Step {
    fn with_env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        if let Work::Cargo { env, .. } = &mut self.work {
            env.push((name, value.into()));
        }
        self
    }
}

fn has_plugin(name: &str) -> bool {
    let mut command = Command::new(cargo());
    command.args([name, "--version"]).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(fast: bool, nextest: bool, deny: bool) -> Vec<String> {
        let binary = Path::new("/t/release/warp");
        plan(fast, &Plugins { nextest, deny }, binary)
            .iter()
            .map(|step| match &step.work {
                Work::Tidy => "tidy".to_owned(),
                Work::Cargo { args, env, .. } => {
                    let env = env.iter().map(|(k, v)| format!("{k}={} ", v.display()));
                    format!("{}{}", env.collect::<String>(), args.join(" "))
                }
            })
            .collect()
    }

    #[test]
    fn the_full_check_builds_the_program_before_the_tests_that_run_it() {
        assert_eq!(
            lines(false, true, true),
            [
                "fmt --all -- --check",
                "clippy --workspace --all-targets -- -D warnings",
                "tidy",
                "deny --offline check bans licenses sources",
                "RUSTDOCFLAGS=-D warnings doc --no-deps --workspace",
                "build --release -p warp",
                "WARP_BIN=/t/release/warp nextest run --workspace",
                "test --doc --workspace",
            ]
        );
    }

    #[test]
    fn fast_builds_no_release_and_runs_no_whole_program_test() {
        for nextest in [true, false] {
            let lines = lines(true, nextest, false);
            assert!(!lines.iter().any(|l| l.contains("--release") || l.contains("WARP_BIN")));
            assert!(lines.iter().any(|l| l.ends_with("--workspace --exclude warp-tests")));
        }
    }

    #[test]
    fn without_nextest_the_whole_program_tests_run_one_at_a_time() {
        let whole = "WARP_BIN=/t/release/warp test --no-fail-fast --tests -p warp-tests -- \
                     --test-threads=1";
        assert!(lines(false, false, false).iter().any(|l| l == whole));
    }

    fn somewhere() -> Workspace {
        Workspace {
            root: std::env::temp_dir(),
            target_directory: std::env::temp_dir(),
            packages: Vec::new(),
        }
    }

    #[test]
    fn a_step_fails_when_its_command_fails_or_leaves_nothing() {
        let failing = cargo_step("x", "no-such-verb-of-cargo");
        assert!(failing.run(&somewhere()).unwrap_err().to_string().contains("no-such-verb"));
        let mut empty = cargo_step("x", "--version");
        empty.run(&somewhere()).unwrap();
        if let Work::Cargo { makes, .. } = &mut empty.work {
            *makes = Some("/no/such/file".into());
        }
        assert!(empty.run(&somewhere()).unwrap_err().to_string().contains("left no"));
    }
}
