//! Every request that really goes out, counted where the SDK hands it to the line: its own repetitions and the parts of
//! large objects cannot be seen from outside.

use crate::store::requests::{RequestCounter, RequestKind};
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use std::sync::Arc;

/// See the file's first line.
#[derive(Debug)]
pub(super) struct CountAttempts(pub(super) Arc<RequestCounter>);

impl Intercept for CountAttempts {
    fn name(&self) -> &'static str {
        "CountAttempts"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = config.load::<Metadata>().map(Metadata::name);
        self.0.asked(operation.map_or(RequestKind::Other, kind_of));
        if config.load::<RequestAttempts>().is_some_and(|attempt| attempt.attempts() > 1) {
            self.0.repeated();
        }
        self.0.sent(context.request().body().content_length().unwrap_or_default());
        Ok(())
    }
}

fn kind_of(operation: &str) -> RequestKind {
    match operation {
        "GetObject" => RequestKind::Get,
        "PutObject" => RequestKind::Put,
        "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload" | "AbortMultipartUpload" => {
            RequestKind::Part
        }
        "HeadObject" | "HeadBucket" => RequestKind::Head,
        "ListObjectsV2" | "ListMultipartUploads" | "ListParts" => RequestKind::List,
        "DeleteObject" | "DeleteObjects" => RequestKind::Delete,
        _ => RequestKind::Other,
    }
}
