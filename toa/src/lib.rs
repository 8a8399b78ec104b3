//! toa: the tiered-object agent of CBFS.
