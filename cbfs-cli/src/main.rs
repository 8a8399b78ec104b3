//! cbfs: the command line of CBFS.

fn main() {}
