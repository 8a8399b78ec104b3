//! `cbfs mount`

use crate::address::FsAddress;
use crate::bucket;
use crate::cli::MountArgs;
use crate::context::Context;
use crate::daemon::{self, Absent, MountPlan, Stays};
use crate::failure::Failure;
use crate::mounts;
use crate::output;
use crate::state::Purpose;
use std::process::ExitCode;

pub(super) fn run(context: &Context, args: MountArgs) -> Result<ExitCode, Failure> {
    if let Some(stays) = args.process.held {
        // Its directory is absolute already; to look at it would ask the mount that waits for this daemon.
        return daemon::run_held(context, plan(&args)?, stays).map(|()| ExitCode::SUCCESS);
    }
    let mut plan = plan(&args)?;
    plan.mount_point = plan.mount_point.as_deref().map(mounts::absolute).transpose()?;
    if args.process.detached {
        return daemon::hold_detached(context, &plan).map(ExitCode::from);
    }
    if let Some(dir) = &plan.mount_point {
        mounts::clear_dead_mount(dir)?;
        mounts::check_mount_point(dir)?;
    }
    if args.process.foreground {
        return daemon::hold(context, &plan, Stays::Foreground).map(ExitCode::from);
    }
    let report = daemon::start_detached(context, &plan)?;
    output::print(context.format, &report, &report)?;
    Ok(ExitCode::SUCCESS)
}

fn plan(args: &MountArgs) -> Result<MountPlan, Failure> {
    let address = bucket::canonical(FsAddress::parse(&args.fs)?)?;
    let purpose = match (&address.snapshot, args.read_only) {
        (Some(snapshot), _) => Purpose::Show(snapshot.clone()),
        (None, true) => Purpose::Show("latest".to_owned()),
        (None, false) => Purpose::Write,
    };
    if args.create && purpose != Purpose::Write {
        return Err(Failure::invalid(format!("--create makes a filesystem, {address} names a snapshot")));
    }
    Ok(MountPlan {
        address,
        purpose,
        absent: if args.create { Absent::Create } else { Absent::Refuse },
        mount_point: args.dir.clone(),
        flags: args.set.clone(),
    })
}
