//! Calling as somebody else, on this thread alone.

use super::action::User;
use rustix::io::Result;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Held while this thread calls as a user; root again when it is dropped.
pub struct Identity {
    user: User,
}

impl Identity {
    /// Becomes `user`. The real ids stay root's, so that there is a way back.
    pub fn assume(user: User) -> Result<Self> {
        match user {
            User::Root => Ok(Self { user }),
            User::Plain(id) => Self::member(id, &[]),
        }
    }

    /// Becomes the plain user `id`, who is in `groups`, too.
    pub fn member(id: u32, groups: &[u32]) -> Result<Self> {
        let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
        set_thread_groups(&groups)?;
        set_thread_res_gid(None::<Gid>, Some(Gid::from_raw(id)), None::<Gid>)?;
        set_thread_res_uid(None::<Uid>, Some(Uid::from_raw(id)), None::<Uid>)?;
        Ok(Self { user: User::Plain(id) })
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        if self.user != User::Root {
            // Root's saved ids allow both; a thread that stayed somebody else would fail at its next step.
            let _ = set_thread_res_uid(None::<Uid>, Some(Uid::ROOT), None::<Uid>);
            let _ = set_thread_res_gid(None::<Gid>, Some(Gid::ROOT), None::<Gid>);
        }
    }
}
