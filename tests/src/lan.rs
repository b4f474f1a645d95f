//! Machines on a network of their own: a network namespace for each, joined by
//! a bridge that leads nowhere else. Needs root.

use crate::must;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The next network of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network with some machines.
pub struct Lan {
    prefix: String,
    machines: u8,
}

impl Lan {
    /// With so many machines, numbered from 1.
    #[track_caller]
    pub fn new(machines: u8) -> Self {
        // Names of interfaces have 15 letters at most.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("w{:x}{number:x}", std::process::id());
        let lan = Self { prefix, machines };
        // The bridge lives in a namespace, too: nothing of it is outside.
        let switch = lan.switch();
        must("ip", ["netns", "add", &switch]);
        must("ip", ["-n", &switch, "link", "add", "name", "hub0", "type", "bridge"]);
        must("ip", ["-n", &switch, "link", "set", "hub0", "up"]);
        for machine in 1..=machines {
            let (space, port) = (lan.space(machine), format!("p{machine}"));
            must("ip", ["netns", "add", &space]);
            must("ip", ["-n", &space, "link", "set", "lo", "up"]);
            let peer = ["peer", "name", "eth0", "netns", &space];
            let add = ["-n", &switch, "link", "add", &port, "type", "veth"];
            must("ip", add.into_iter().chain(peer));
            must("ip", ["-n", &switch, "link", "set", &port, "master", "hub0", "up"]);
            let address = format!("{}/24", lan.address(machine));
            must("ip", ["-n", &space, "addr", "add", &address, "dev", "eth0"]);
            must("ip", ["-n", &space, "link", "set", "eth0", "up"]);
            // No rate means what it says while the kernel passes on packets
            // of 64 KiB.
            for (place, device) in [(&space, "eth0"), (&switch, port.as_str())] {
                let off = ["gso", "off", "gro", "off", "tso", "off"];
                let tool = ["netns", "exec", place, "ethtool", "-K", device];
                must("ip", tool.into_iter().chain(off));
            }
        }
        lan
    }

    fn switch(&self) -> String {
        format!("{}-0", self.prefix)
    }

    /// Name of a machine's namespace.
    pub fn space(&self, machine: u8) -> String {
        assert!((1..=self.machines).contains(&machine), "machines are numbered from 1");
        format!("{}-{machine}", self.prefix)
    }

    /// A machine's address.
    pub fn address(&self, machine: u8) -> String {
        format!("10.77.0.{machine}")
    }

    /// A program and its arguments, to be run on a machine. It sees the mounts
    /// that everybody sees.
    pub fn on(&self, machine: u8, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.space(machine))).arg(program);
        command
    }

    /// A machine has another address from now on, of the same network.
    #[track_caller]
    pub fn readdress(&self, machine: u8, last: u8) {
        let space = self.space(machine);
        must("ip", ["-n", &space, "addr", "flush", "dev", "eth0", "scope", "global"]);
        must("ip", ["-n", &space, "addr", "add", &format!("10.77.0.{last}/24"), "dev", "eth0"]);
    }

    /// What a machine sends passes at this rate, in megabits a second.
    #[track_caller]
    pub fn sends_at(&self, machine: u8, megabits: u32) {
        let rate = format!("{megabits}mbit");
        // 10 ms' worth, and a packet at least.
        let burst = format!("{}", (megabits * 1250).max(3000));
        let space = self.space(machine);
        let filter = ["tbf", "rate", &rate, "burst", &burst, "latency", "50ms"];
        let replace = ["-n", &space, "qdisc", "replace", "dev", "eth0", "root"];
        must("tc", replace.into_iter().chain(filter));
    }

    /// From now on nothing that a machine sends arrives, and nobody is told.
    #[track_caller]
    pub fn silence(&self, machine: u8) {
        let port = format!("p{machine}");
        must("ip", ["-n", &self.switch(), "link", "set", &port, "nomaster"]);
    }

    /// It is heard again.
    #[track_caller]
    pub fn restore(&self, machine: u8) {
        let port = format!("p{machine}");
        must("ip", ["-n", &self.switch(), "link", "set", &port, "master", "hub0"]);
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for machine in 0..=self.machines {
            let space = format!("{}-{machine}", self.prefix);
            let _ = Command::new("ip").args(["netns", "del", &space]).status();
        }
    }
}
