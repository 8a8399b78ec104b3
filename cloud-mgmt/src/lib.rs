//! cloud-mgmt: the bucket of CBFS.
