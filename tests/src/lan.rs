//! Machines on a network of their own: a network namespace for each, joined by
//! a bridge that leads nowhere else. Needs root.

use crate::must;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Passes frames on late, or not at all: this kernel has no netem.
const SHAPER: &str = include_str!("shaper.py");

/// The next network of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network with some machines.
pub struct Lan {
    prefix: String,
    machines: u8,
    shapers: Mutex<Vec<Child>>,
}

impl Lan {
    /// With so many machines, numbered from 1.
    #[track_caller]
    pub fn new(machines: u8) -> Self {
        // Names of interfaces have 15 letters at most.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("w{:x}{number:x}", std::process::id());
        let lan = Self { prefix, machines, shapers: Mutex::default() };
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
                without(place, device, ["gso", "gro", "tso"]);
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

    /// What a machine sends and what it is sent is so long on its way from now
    /// on, and of its UDP packets this share is lost, each way.
    #[track_caller]
    pub fn is_far(&self, machine: u8, delay: Duration, loss: f64) {
        let (switch, port) = (self.switch(), format!("p{machine}"));
        let (near, far) = (format!("n{machine}"), format!("f{machine}"));
        let pair = ["type", "veth", "peer", "name", &far];
        must("ip", ["-n", &switch, "link", "add", &near].into_iter().chain(pair));
        must("ip", ["-n", &switch, "link", "set", &near, "up"]);
        must("ip", ["-n", &switch, "link", "set", &port, "nomaster"]);
        must("ip", ["-n", &switch, "link", "set", &far, "master", "hub0", "up"]);
        for device in [&near, &far] {
            without(&switch, device, ["gso", "gro", "tso"]);
        }
        // What a packet socket passes on must have its checksum.
        (1..=self.machines).for_each(|other| without(&self.space(other), "eth0", ["tx"]));
        let mut shaper = Command::new("ip");
        shaper.args(["netns", "exec", &switch, "python3", "-c", SHAPER, &port, &near]);
        shaper.arg(format!("{}", delay.as_secs_f64() * 1e3)).arg(loss.to_string());
        shaper.arg(machine.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = shaper.spawn().expect("python3 is there");
        let mut said = String::new();
        let stdout = child.stdout.take().expect("piped");
        self.shapers.lock().unwrap_or_else(PoisonError::into_inner).push(child);
        BufReader::new(stdout).read_line(&mut said).expect("read");
        assert_eq!(said, "ready\n", "the shaper cannot begin");
    }

    /// A machine is behind a router that gives what it sends its own address,
    /// and lets in what answers that.
    #[track_caller]
    pub fn is_behind_nat(&self, machine: u8) {
        let (space, router) = (self.space(machine), self.router(machine));
        let address = format!("{}/24", self.address(machine));
        must("ip", ["netns", "add", &router]);
        must("ip", ["-n", &space, "link", "set", "eth0", "netns", &router, "name", "out0"]);
        must("ip", ["-n", &router, "addr", "add", &address, "dev", "out0"]);
        must("ip", ["-n", &router, "link", "set", "out0", "up"]);
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", &space];
        must("ip", ["-n", &router, "link", "add", "in0"].into_iter().chain(pair));
        for (place, device, own) in
            [(&router, "in0", "192.168.77.1/24"), (&space, "eth0", "192.168.77.2/24")]
        {
            must("ip", ["-n", place, "addr", "add", own, "dev", device]);
            must("ip", ["-n", place, "link", "set", device, "up"]);
            without(place, device, ["gso", "gro", "tso"]);
        }
        must("ip", ["-n", &space, "route", "add", "default", "via", "192.168.77.1"]);
        let rules = "echo 1 > /proc/sys/net/ipv4/ip_forward
            nft 'add table ip nat'
            nft 'add chain ip nat post { type nat hook postrouting priority 100; }'
            nft 'add rule ip nat post oifname out0 masquerade'
            nft 'add table ip wall'
            nft 'add chain ip wall pass { type filter hook forward priority 0; policy drop; }'
            nft 'add rule ip wall pass iifname in0 accept'
            nft 'add rule ip wall pass ct state established,related accept'";
        must("ip", ["netns", "exec", &router, "sh", "-ec", rules]);
    }

    fn router(&self, machine: u8) -> String {
        format!("{}-r{machine}", self.prefix)
    }

    /// From now on a machine's packets are dropped as they come and go, and
    /// nobody is told.
    #[track_caller]
    pub fn drop_all(&self, machine: u8) {
        let rules = "nft 'add table inet cut'
            nft 'add chain inet cut in { type filter hook input priority 0; policy drop; }'
            nft 'add chain inet cut out { type filter hook output priority 0; policy drop; }'";
        must("ip", ["netns", "exec", &self.space(machine), "sh", "-ec", rules]);
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
        for shaper in self.shapers.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = shaper.kill();
            let _ = shaper.wait();
        }
        for machine in 0..=self.machines {
            for space in [format!("{}-{machine}", self.prefix), self.router(machine)] {
                let _ = Command::new("ip")
                    .args(["netns", "del", &space])
                    .stderr(Stdio::null())
                    .status();
            }
        }
    }
}

/// Has a machine's network device do without these offloads.
#[track_caller]
fn without<const N: usize>(space: &str, device: &str, offloads: [&str; N]) {
    let off = offloads.into_iter().flat_map(|offload| [offload, "off"]);
    must("ip", ["netns", "exec", space, "ethtool", "-K", device].into_iter().chain(off));
}
