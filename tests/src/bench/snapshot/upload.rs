//! Standard input into a bucket, as the product sends its packs: the same client, the same sizes of parts, as many at once.
//! What is left to compare is what fills the pipe.

use crate::s3::client_at;
use anyhow::{Context, Result};
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use std::io::{Read, stdin};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// What fits goes in one request.
const PLAIN_BYTES_MAX: usize = 16 << 20;
const PART_BYTES: usize = 8 << 20;
/// Parts in flight.
const CONCURRENCY: usize = 4;

/// Sends standard input to its end as one object.
pub fn upload(address: SocketAddr, bucket: &str, key: &str) -> Result<()> {
    let (filled, parts) = sync_channel(1);
    let reader = thread::spawn(move || -> Result<()> {
        let mut input = stdin().lock();
        loop {
            let mut part = Vec::with_capacity(PART_BYTES);
            (&mut input).take(PART_BYTES as u64).read_to_end(&mut part)?;
            // A sender that gave up says itself why.
            if part.is_empty() || filled.send(Bytes::from(part)).is_err() {
                return Ok(());
            }
        }
    });
    let target = Target { client: client_at(address), bucket: bucket.to_owned(), key: key.to_owned() };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let sent = runtime.block_on(target.send(&parts));
    drop(parts);
    let read = reader.join().map_err(|_| anyhow::anyhow!("the reading thread panicked"))?;
    sent.and(read)
}

#[derive(Clone)]
struct Target {
    client: Client,
    bucket: String,
    key: String,
}

impl Target {
    async fn send(&self, parts: &Receiver<Bytes>) -> Result<()> {
        let mut small = Vec::new();
        while small.len() <= PLAIN_BYTES_MAX {
            let Ok(part) = parts.recv() else {
                let put = self.client.put_object().bucket(&self.bucket).key(&self.key);
                put.body(ByteStream::from(small)).send().await.context("cannot put")?;
                return Ok(());
            };
            small.extend_from_slice(&part);
        }
        let begin = self.client.create_multipart_upload().bucket(&self.bucket).key(&self.key);
        let id = begin.send().await.context("cannot begin")?.upload_id.context("no upload id")?;
        let first: Vec<Bytes> = small.chunks(PART_BYTES).map(Bytes::copy_from_slice).collect();
        let mut done = self.send_parts(&id, first.into_iter().chain(parts.iter())).await?;
        done.sort_by_key(CompletedPart::part_number);
        let done = CompletedMultipartUpload::builder().set_parts(Some(done)).build();
        let end = self.client.complete_multipart_upload().bucket(&self.bucket).key(&self.key).upload_id(id);
        end.multipart_upload(done).send().await.context("cannot complete")?;
        Ok(())
    }

    async fn send_parts(&self, id: &str, parts: impl Iterator<Item = Bytes>) -> Result<Vec<CompletedPart>> {
        let (mut done, mut sending) = (Vec::new(), JoinSet::new());
        for (number, part) in (1..).zip(parts) {
            if sending.len() >= CONCURRENCY
                && let Some(sent) = sending.join_next().await
            {
                done.push(sent??);
            }
            let (target, id) = (self.clone(), id.to_owned());
            sending.spawn(async move { target.send_part(&id, number, part).await });
        }
        while let Some(sent) = sending.join_next().await {
            done.push(sent??);
        }
        Ok(done)
    }

    async fn send_part(&self, id: &str, number: i32, part: Bytes) -> Result<CompletedPart> {
        let request = self.client.upload_part().bucket(&self.bucket).key(&self.key).upload_id(id);
        let answer = request.part_number(number).body(part.into()).send().await.context("cannot send a part")?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(answer.e_tag).build())
    }
}
