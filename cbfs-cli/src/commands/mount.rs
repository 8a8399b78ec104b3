//! `cbfs mount`

use crate::address::FsAddress;
use crate::bucket;
use crate::cli::MountArgs;
use crate::context::Context;
use crate::daemon::{self, Absent, MountPlan, MountReport, Ready};
use crate::failure::Failure;
use crate::mounts;
use crate::output;
use crate::state::Purpose;
use std::path::PathBuf;

pub(super) fn run(context: &Context, args: MountArgs) -> Result<(), Failure> {
    let plan = plan(&args)?;
    if args.process.detached {
        return daemon::run_detached(context, plan);
    }
    if let Some(dir) = &plan.mount_point {
        mounts::clear_dead_mount(dir)?;
        mounts::check_mount_point(dir)?;
    }
    if args.process.foreground {
        let format = context.format;
        let report = move |report: &MountReport| output::print(format, report, report);
        return daemon::run(context, plan, Ready::Call(Box::new(report)));
    }
    let report = daemon::start_detached(context, &plan)?;
    output::print(context.format, &report, &report)
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
    let mount_point: Option<PathBuf> = args.dir.as_deref().map(mounts::absolute).transpose()?;
    Ok(MountPlan {
        address,
        purpose,
        absent: if args.create { Absent::Create } else { Absent::Refuse },
        mount_point,
        flags: args.set.clone(),
    })
}
