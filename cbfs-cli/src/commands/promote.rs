//! `cbfs promote`

use super::live::{self, Prefer};
use crate::cli::PromoteArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

pub(super) async fn run(context: &Context, args: PromoteArgs) -> Result<(), Failure> {
    let promotion = live::client(context, &args.fs, Prefer::Slave)?.promote(args.epoch).await?;
    let text = format!("this node is master of {} in epoch {}", promotion.name, promotion.epoch);
    output::print(context.format, &promotion, &text)
}
