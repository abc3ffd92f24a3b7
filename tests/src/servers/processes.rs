//! A process and all that descend from it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, pidfd_send_signal, waitid,
};

/// Processes by descriptors of theirs: their numbers may go to others, these do not.
#[derive(Debug)]
pub(super) struct Family {
    members: Vec<OwnedFd>,
}

impl Family {
    /// Stops a child of this process, so that it cannot have further children, and finds all that descend from it.
    pub(super) fn stop(child: Pid) -> io::Result<Self> {
        kill_process(child, Signal::STOP)?;
        // It may be gone already. That stays for whoever waits for the child.
        waitid(WaitId::Pid(child), WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        let mut members = Vec::new();
        for id in descendants(child) {
            // Those that end meanwhile need nothing.
            if let Ok(member) = pidfd_open(id, PidfdFlags::empty()) {
                let _ = pidfd_send_signal(&member, Signal::STOP);
                members.push(member);
            }
        }
        Ok(Self { members })
    }

    pub(super) fn kill(&self) {
        for member in &self.members {
            let _ = pidfd_send_signal(member, Signal::KILL);
        }
    }

    /// Waits until none is left. `patience` is for each of them.
    pub(super) fn wait(&self, patience: Duration) -> io::Result<()> {
        let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
        for member in &self.members {
            if poll(&mut [PollFd::new(member, PollFlags::IN)], Some(&patience))? == 0 {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "a killed server does not end"));
            }
        }
        Ok(())
    }
}

/// Children, their children and so on, from `/proc`.
pub(super) fn descendants(ancestor: Pid) -> Vec<Pid> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let parent = fs::read_to_string(entry.path().join("stat")).ok().and_then(|stat| parent_in(&stat));
        parents.extend(id.zip(parent));
    }
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        next += 1;
    }
    found.split_off(1)
}

/// The program's name stands in brackets, and may have brackets and spaces in it.
fn parent_in(stat: &str) -> Option<Pid> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split_whitespace().nth(1)?.parse().ok().and_then(Pid::from_raw)
}
